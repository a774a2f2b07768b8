//! The program `clients/rustls`, built by the tests that use it.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::{Mutex, PoisonError},
};

use crate::program::{agentsight, root};

/// How the program is compiled and linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Build {
    /// A profile of its `Cargo.toml`.
    pub profile: &'static str,
    /// Whose ciphers it has: a feature of its `Cargo.toml`.
    pub ciphers: &'static str,
    /// Without symbols.
    pub stripped: bool,
}

/// Builds in one folder are made by one test at a time.
static BUILDING: Mutex<()> = Mutex::new(());

/// The program, built below the target folder.
pub fn build(Build { profile, ciphers, stripped }: Build) -> PathBuf {
    let _guard = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    // TARGET/PROFILE/agentsight; what other ciphers are built of doesn't replace what is there.
    let target = agentsight().ancestors().nth(2).expect("a target folder").join(format!("rustls-{ciphers}"));
    let succeeds = |command: &mut Command| command.status().is_ok_and(|status| status.success());
    let built = succeeds(
        Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .current_dir(root().join("tests/clients/rustls"))
            .args(["build", "--quiet", "--locked", "--profile", profile, "--features", ciphers, "--target-dir"])
            .arg(&target)
            // What the tests themselves are built with is no concern of theirs.
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS"),
    );
    assert!(built, "clients/rustls does not build");
    let program = target.join(if profile == "dev" { "debug" } else { profile }).join("rustls-client");
    if !stripped {
        return program;
    }
    let bare = program.with_file_name("rustls-client-stripped");
    let is_newer = |path: &PathBuf| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    if is_newer(&bare) < is_newer(&program) {
        assert!(succeeds(Command::new("strip").arg("--strip-all").arg("-o").arg(&bare).arg(&program)), "strip fails");
    }
    bare
}
