//! `lab`: clusters out of network namespaces, by hand.

use std::process::ExitCode;

fn main() -> ExitCode {
    hawser_tests::command::run()
}
