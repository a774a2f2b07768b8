//! The `agentsight` program.

fn main() -> std::process::ExitCode {
    agentsight::cli::main()
}
