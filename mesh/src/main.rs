//! `hawser`: agent and command line.

fn main() -> std::process::ExitCode {
    hawser_mesh::cli::run()
}
