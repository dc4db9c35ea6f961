//! What building RocksDB needs besides cargo: a C++ compiler, and libclang for its bindings.

use crate::failure::Failure;
use anyhow::Result;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// Looks for both before minutes are spent on a build that cannot end well.
///
/// # Errors
/// Something is missing (exit code 2); the message says which package has it.
pub(super) fn check() -> Result<()> {
    if env::var_os("CXX").is_none() && !is_in_path("c++") {
        return Err(Failure::usage(
            "no C++ compiler found, and RocksDB needs one; on Debian: apt-get install g++",
        ));
    }
    // clang-sys, which looks for the library during the build, believes this variable as well.
    if env::var_os("LIBCLANG_PATH").is_none() && !library_folders().any(|it| has_libclang(&it)) {
        return Err(Failure::usage(
            "no libclang found, and the bindings of RocksDB are made with it; \
             on Debian: apt-get install clang libclang-dev",
        ));
    }
    Ok(())
}

fn is_in_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The usual folders, and those of every LLVM that is installed beside them.
fn library_folders() -> impl Iterator<Item = PathBuf> {
    let usual = [
        "/usr/lib",
        "/usr/lib64",
        "/usr/local/lib",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
    ];
    let installed = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let of_llvm = installed
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("llvm"))
        .map(|entry| entry.path().join("lib"));
    usual.into_iter().map(PathBuf::from).chain(of_llvm)
}

fn has_libclang(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| {
        let name = entry.file_name();
        is_libclang(&name.to_string_lossy())
    })
}

/// `libclang.so`, `libclang-14.so.1`; not `libclang-cpp.so.14`, which is another library.
fn is_libclang(name: &str) -> bool {
    name.strip_prefix("libclang")
        .and_then(|rest| rest.split_once(".so"))
        .is_some_and(|(version, _)| {
            version
                .chars()
                .all(|letter| letter == '-' || letter == '.' || letter.is_ascii_digit())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libclang_is_told_from_its_relatives() {
        for name in ["libclang.so", "libclang-14.so.1", "libclang.so.14"] {
            assert!(is_libclang(name), "{name}");
        }
        for name in [
            "libclang-cpp.so.14",
            "libclang_rt.so",
            "libclang.a",
            "libc.so",
        ] {
            assert!(!is_libclang(name), "{name}");
        }
    }
}
