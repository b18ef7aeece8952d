//! `reservegrid`: see the library.

fn main() -> std::process::ExitCode {
    reservegrid::run()
}
