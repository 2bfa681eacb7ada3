//! `simulate`: clusters on virtual time, with everything that can go wrong.

use std::process::ExitCode;

/// A world is many small things that come and go.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    hawser_tests::simulation::command::main()
}
