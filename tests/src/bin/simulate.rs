//! `simulate`: clusters on virtual time, with everything that can go wrong.

use std::process::ExitCode;

fn main() -> ExitCode {
    hawser_tests::simulation::command::main()
}
