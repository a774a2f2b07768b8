//! Where the program under test is.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The `agentsight` binary of the profile that the tests are built with, brought up to date once.
///
/// Cargo tells only the tests of the binary's own package where the binary is, and builds it for them only.
pub fn agentsight() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let test = env::current_exe().expect("the test's own path");
        // TARGET/PROFILE/deps/TEST
        let profile_folder = test.ancestors().nth(2).expect("a test is in target/PROFILE/deps");
        let target_folder = profile_folder.parent().expect("a profile's folder is in a target folder");
        let profile = match profile_folder.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(name) => name,
        };
        let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            // With the whole workspace, so that features are unified as they were for the tests.
            .args(["build", "--quiet", "--workspace", "--bin", "agentsight", "--profile", profile, "--target-dir"])
            .arg(target_folder)
            .current_dir(root())
            .status()
            .expect("cargo runs");
        assert!(status.success(), "the agentsight binary does not build");
        profile_folder.join("agentsight")
    })
}

/// The workspace's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package is in the workspace")
}
