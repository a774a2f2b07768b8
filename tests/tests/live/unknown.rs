//! Programs with TLS inside that can't be seen: nobody is left to find that out.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use agentsight_tests::live::Live;

/// A program of a megabyte that has `text` among its constants, and lives for two seconds.
fn program_with(folder: &Path, name: &str, text: &str) -> PathBuf {
    let (source, program) = (folder.join(name).with_extension("c"), folder.join(name));
    let code = format!(
        "#include <unistd.h>\n\
         static const volatile char text[] = \"{text}\", more[1 << 20] = {{1}};\n\
         int main(void) {{ sleep(2); return text[0] + more[0] == 0; }}\n"
    );
    fs::write(&source, code).expect("the source is written");
    let made = Command::new("cc").arg("-o").args([&program, &source]).status().expect("a C compiler");
    assert!(made.success());
    program
}

/// Once in each run, by what is looked for in the first and by what is remembered in the second.
#[test]
fn a_tls_library_that_is_not_known_is_told() {
    let Some(live) = Live::begin() else { return };
    let unknown = program_with(live.folder.path(), "unknown", "TLS 1.3, server CertificateVerify");
    let other = program_with(live.folder.path(), "other", "TLS 1.3 and the server's certificate");
    for run in ["first", "second"] {
        let engine = live.engine(&[]);
        let start = |program: &PathBuf| Command::new(program).stdin(Stdio::null()).spawn().expect("it starts");
        for mut process in [&unknown, &other, &unknown].map(start) {
            assert!(process.wait().expect("it ends").success());
        }
        let said = engine.stop().stderr;
        let told = format!("not attached to {}: it has a TLS library inside that is not known", unknown.display());
        assert_eq!(said.matches(&told).count(), 1, "{run}: {said}");
        assert!(!said.contains(&other.display().to_string()), "{run}: {said}");
    }
}
