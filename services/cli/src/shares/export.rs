//! `shares export`: judged shares as CSV or NDJSON.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::process::ExitCode;

use flate2::Compression;
use flate2::write::GzEncoder;
use journal::export::{Exporter, FILL_BYTES};
use journal::request::ExportRequest;

use super::options::ExportOptions;
use crate::complain;

/// Writes the rows.
///
/// # Errors
/// What was wrong with the options, the journal or the output.
pub fn run(options: &ExportOptions) -> Result<ExitCode, String> {
    let request = ExportRequest {
        from: options.from.clone(),
        to: options.to.clone(),
        miner: options.miner.clone(),
        status: options.status.clone(),
        columns: options.columns.clone(),
        format: options.format.clone(),
        after: options.after.clone(),
        limit: options.limit.clone(),
    };
    let (filter, columns, format) = request.read().map_err(|error| format!("--{error}"))?;
    let folder = super::open(&options.place.data_dir)?;
    let mut exporter = Exporter::open(&folder, filter, columns, format, u64::MAX)
        .map_err(|error| error.to_string())?;
    let (to, output): (String, Box<dyn Write>) = match &options.output {
        None => ("standard output".to_owned(), Box::new(io::stdout().lock())),
        Some(path) => {
            let name = path.display().to_string();
            let file = File::create(path).map_err(|error| format!("{name}: {error}"))?;
            (name, Box::new(file))
        }
    };
    let written = match options.gzip {
        true => {
            let mut gzip = GzEncoder::new(output, Compression::default());
            write_all(&mut exporter, &mut gzip).and_then(|()| Ok(gzip.finish().map(drop)?))
        }
        false => write_all(&mut exporter, &mut BufWriter::new(output)),
    };
    match written {
        Ok(()) => {
            let (rows, last) = (exporter.rows(), exporter.last_event());
            complain(&format!("{rows} rows; go on behind them with --after {last}"));
            Ok(ExitCode::SUCCESS)
        }
        // Whoever reads has seen enough.
        Err(Failed::Output(error)) if error.kind() == ErrorKind::BrokenPipe => {
            Ok(ExitCode::SUCCESS)
        }
        Err(Failed::Output(error)) => Err(format!("{to}: {error}")),
        Err(Failed::Journal(error)) => Err(error),
    }
}

enum Failed {
    Journal(String),
    Output(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Failed {
        Failed::Output(error)
    }
}

fn write_all(exporter: &mut Exporter, output: &mut impl Write) -> Result<(), Failed> {
    let mut rows = Vec::with_capacity(FILL_BYTES);
    loop {
        rows.clear();
        let filled = exporter.fill(&mut rows);
        output.write_all(&rows)?;
        if !filled.map_err(|error| Failed::Journal(error.to_string()))? {
            return Ok(output.flush()?);
        }
    }
}
