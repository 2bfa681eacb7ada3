//! `fuzz`: any bytes for everything that parses bytes in `hawser-tunnel`.

use std::process::ExitCode;

fn main() -> ExitCode {
    hawser_tests::fuzz::command::run()
}
