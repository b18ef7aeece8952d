//! What somebody asks an export for, as text: by a query of HTTP or on a command line.

use std::fmt;

use jiff::civil::Date;
use jiff::{Timestamp, tz::TimeZone};
use serde::Deserialize;
use work::UnixTime;

use crate::export::{Columns, Filter, Format};

/// Bytes of a miner's name that is asked for, at most.
pub const MINER_BYTES_MAX: usize = 255;

/// Every parameter as it was given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportRequest {
    /// First time, RFC 3339 or a date.
    pub from: Option<String>,
    /// Time before which, RFC 3339 or a date.
    pub to: Option<String>,
    /// A miner's name.
    pub miner: Option<String>,
    /// Names of [`crate::export::Status`], separated by commas.
    pub status: Option<String>,
    /// Names of [`crate::export::Column`], separated by commas.
    pub columns: Option<String>,
    /// `csv` or `ndjson`.
    pub format: Option<String>,
    /// Event of the last row that one has.
    pub after: Option<String>,
    /// Rows at most.
    pub limit: Option<String>,
}

/// A parameter that says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestError {
    /// Its name.
    pub parameter: &'static str,
    /// What was expected.
    pub why: String,
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.parameter, self.why)
    }
}

impl std::error::Error for RequestError {}

impl ExportRequest {
    /// What is to be exported, and how.
    ///
    /// # Errors
    /// The first parameter that says nothing.
    pub fn read(&self) -> Result<(Filter, Columns, Format), RequestError> {
        let filter = Filter {
            from: time("from", self.from.as_deref())?,
            to: time("to", self.to.as_deref())?,
            miner: miner(self.miner.clone())?,
            statuses: Filter::parse_statuses(self.status.as_deref().unwrap_or_default())
                .map_err(|error| RequestError { parameter: "status", why: error.to_string() })?,
            after: number("after", self.after.as_deref())?.unwrap_or(0),
            limit: number("limit", self.limit.as_deref())?,
        };
        if let (Some(from), Some(to)) = (filter.from, filter.to)
            && from >= to
        {
            let why = "it is not after `from`; give a later time".to_owned();
            return Err(RequestError { parameter: "to", why });
        }
        let columns = Columns::parse(self.columns.as_deref().unwrap_or_default())
            .map_err(|error| RequestError { parameter: "columns", why: error.to_string() })?;
        let format = match self.format.as_deref() {
            None | Some("csv") => Format::Csv,
            Some("ndjson") => Format::Ndjson,
            Some(other) => {
                let why = format!("{other:?} is no format; expected csv or ndjson");
                return Err(RequestError { parameter: "format", why });
            }
        };
        Ok((filter, columns, format))
    }
}

/// A miner's name to look for.
///
/// # Errors
/// It is empty or too long: no miner has it.
pub fn miner(name: Option<String>) -> Result<Option<String>, RequestError> {
    match &name {
        Some(given) if given.is_empty() || given.len() > MINER_BYTES_MAX => {
            let why = format!("{} bytes; names have 1 to {MINER_BYTES_MAX}", given.len());
            Err(RequestError { parameter: "miner", why })
        }
        _ => Ok(name),
    }
}

/// A whole number.
///
/// # Errors
/// It is none.
pub fn number(parameter: &'static str, text: Option<&str>) -> Result<Option<u64>, RequestError> {
    let parse = |text: &str| {
        let why = || format!("{text:?} is no whole number from 0 to {}", u64::MAX);
        text.parse().map_err(|_| RequestError { parameter, why: why() })
    };
    text.map(parse).transpose()
}

/// A moment: RFC 3339, or a date for its begin in UTC.
///
/// # Errors
/// It is neither, or before 1970.
pub fn time(parameter: &'static str, text: Option<&str>) -> Result<Option<UnixTime>, RequestError> {
    let parse = |text: &str| {
        // A date's parser takes a moment without a zone, too, and drops its time.
        let is_date = text.len() == "2026-01-31".len();
        let date = |text: &str| text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok();
        let date = |text: &str| date(text).filter(|_| is_date);
        let moment = match text.parse::<Timestamp>() {
            Ok(moment) => Some(moment),
            Err(_) => date(text).map(|begin| begin.timestamp()),
        };
        let millis = moment.and_then(|moment| u64::try_from(moment.as_millisecond()).ok());
        let why = || {
            format!(
                "{text:?} is no time from 1970 on; expected RFC 3339 as 2026-01-31T12:00:00Z (a + \
                 in a query is written %2B), or a date as 2026-01-31"
            )
        };
        millis.map(UnixTime).ok_or_else(|| RequestError { parameter, why: why() })
    };
    text.map(parse).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_moments_or_days() {
        let read = |text: &str| time("from", Some(text)).map(|time| time.map(|time| time.0));
        assert_eq!(read("1970-01-02"), Ok(Some(86_400_000)));
        assert_eq!(read("1970-01-01T00:00:01.5Z"), Ok(Some(1_500)));
        assert_eq!(read("1970-01-01T02:00:00+02:00"), Ok(Some(0)));
        for wrong in ["", "yesterday", "1969-12-31", "1970-13-01", "12", "1970-01-01T02:00:00"] {
            let error = read(wrong).unwrap_err();
            assert!(error.to_string().starts_with("from: "), "{wrong}: {error}");
        }
    }

    #[test]
    fn nonsense_names_its_parameter() {
        let none = ExportRequest::default();
        let some = |text: &str| Some(text.to_owned());
        let wrong = [
            ("from", ExportRequest { from: some("soon"), ..none.clone() }),
            (
                "to",
                ExportRequest { from: some("2026-01-02"), to: some("2026-01-01"), ..none.clone() },
            ),
            ("miner", ExportRequest { miner: some(""), ..none.clone() }),
            ("status", ExportRequest { status: some("lost"), ..none.clone() }),
            ("columns", ExportRequest { columns: some("share_id,colour"), ..none.clone() }),
            ("format", ExportRequest { format: some("parquet"), ..none.clone() }),
            ("after", ExportRequest { after: some("-1"), ..none.clone() }),
            ("limit", ExportRequest { limit: some("many"), ..none.clone() }),
        ];
        for (parameter, request) in wrong {
            let error = request.read().unwrap_err();
            assert_eq!(error.parameter, parameter, "{error}");
        }
        let (filter, _, format) = none.read().unwrap();
        assert_eq!((filter.after, filter.limit, format), (0, None, Format::Csv));
    }
}
