//! Bugs that are planted in a copy of the product, to show that the simulation finds them; and defences that are removed
//! there, to show that a test misses each. The product itself has nothing of it.
//!
//! One copy has all of them; the environment of its programs says which one is in force.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

mod defences;
mod table;

pub use defences::{DEFENCES, Defence, REMOVALS, Tests};
pub use table::PLANTS;

/// Says which bug is in force, to a program that [`build`] made.
pub const VARIABLE: &str = "HAWSER_PLANT";

/// The crates that bugs are planted in.
const CRATES: [&str; 2] = ["mesh", "tunnel"];

/// What `simulate` is called in the copy.
const SIMULATE: &str = "simulate-planted";

/// How variables begin by which cargo describes a package to its programs.
const PACKAGE_VARIABLES: [&str; 5] = [
    "CARGO_PKG_",
    "CARGO_MANIFEST_",
    "CARGO_CRATE_",
    "CARGO_BIN_",
    "OUT_DIR",
];

/// In a plant's text: whether it is in force.
const MARK: &str = "planted!()";

/// A bug.
#[derive(Clone, Copy, Debug)]
pub struct Plant {
    /// Its name.
    pub name: &'static str,
    /// What is wrong with it.
    pub bug: &'static str,
    /// A file of a crate of the product.
    pub file: &'static str,
    /// A text that is in it once.
    pub right: &'static str,
    /// What is there instead; `planted!()` says whether the bug is in force.
    pub wrong: &'static str,
}

/// All plants, as they are numbered.
fn all() -> impl Iterator<Item = &'static Plant> {
    PLANTS.iter().chain(REMOVALS)
}

/// Makes `simulate` with all bugs in it, and returns where it is.
///
/// # Errors
/// A plant's text is not found once, or the build fails.
pub fn build() -> Result<PathBuf> {
    let (copy, target) = copy()?;
    cargo(
        &copy,
        &target,
        &["build", "-p", "hawser-tests", "--bin", SIMULATE],
    )?;
    Ok(target.join("release").join(SIMULATE))
}

/// Makes tests with all bugs in what they test, and returns where they are.
///
/// # Errors
/// A plant's text is not found once, or the build fails.
pub fn build_tests(of: Tests) -> Result<PathBuf> {
    let (copy, target) = copy()?;
    // They run once each: what counts is how soon they are built.
    let (package, which, name): (&str, &[&str], &str) = match of {
        Tests::Mesh => ("hawser-mesh", &["--lib"], "hawser_mesh-"),
        Tests::Claims => ("hawser-tunnel", &["--test", "claims"], "claims-"),
    };
    let quick = format!("profile.release.package.{package}.opt-level=1");
    let build = ["test", "-p", package, "--no-run", "--config", &quick];
    let told = cargo(&copy, &target, &[&build[..], which].concat())?;
    let program = told.lines().find_map(|line| {
        let (_, rest) = line.split_once("\"executable\":\"")?;
        let (path, _) = rest.split_once('"')?;
        path.contains(name).then(|| PathBuf::from(path))
    });
    program.context("cargo does not say where the tests are")
}

/// Copies the product, with all bugs in it. Returns where, and where it is built.
fn copy() -> Result<(PathBuf, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the tests are in a folder of the repository")?;
    let target = target_folder()?;
    let copy = target.join("plants");
    for name in CRATES {
        let to = copy.join(name);
        if to.is_symlink() {
            fs::remove_file(&to)?;
        }
        copy_folder(root, Path::new(name), &copy)?;
        let switch_file = copy.join(name).join("src/plant.rs");
        write(&switch_file, switch().as_bytes())?;
    }
    // Cargo knows the packages of a workspace by name and version, not by where they are: without a version of its own the
    // copy's would be taken for the product's in the next build.
    let version = concat!("version = \"", env!("CARGO_PKG_VERSION"), "\"");
    let own = concat!("version = \"", env!("CARGO_PKG_VERSION"), "-plants\"");
    let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
    write(
        &copy.join("Cargo.toml"),
        manifest.replacen(version, own, 1).as_bytes(),
    )?;
    let mut lock = fs::read_to_string(root.join("Cargo.lock"))?;
    for name in ["hawser-cni", "hawser-mesh", "hawser-tests", "hawser-tunnel"] {
        let package = format!("name = \"{name}\"\n");
        let (before, after) = (format!("{package}{version}"), format!("{package}{own}"));
        ensure!(lock.contains(&before), "{name} is not in Cargo.lock");
        lock = lock.replace(&before, &after);
    }
    write(&copy.join("Cargo.lock"), lock.as_bytes())?;
    let toolchain = "rust-toolchain.toml";
    write(&copy.join(toolchain), &fs::read(root.join(toolchain))?)?;
    link(&root.join("cni"), &copy.join("cni"))?;
    link(&root.join("tests/src"), &copy.join("tests/src"))?;
    let manifest = fs::read_to_string(root.join("tests/Cargo.toml"))?;
    let manifest = manifest.replace("name = \"simulate\"", &format!("name = \"{SIMULATE}\""));
    write(&copy.join("tests/Cargo.toml"), manifest.as_bytes())?;
    Ok((copy, target))
}

/// Runs cargo in the copy. Returns what it told, a line of JSON for each artefact.
fn cargo(copy: &Path, target: &Path, arguments: &[&str]) -> Result<String> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo tells a test of its package would be taken for another environment by build scripts that ask for it:
    // libraries would be built again, here and in the product's next build.
    let of_package = |name: &str| PACKAGE_VARIABLES.iter().any(|with| name.starts_with(with));
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(of_package) {
            cargo.env_remove(name);
        }
    }
    let output = cargo
        .args(arguments)
        .args([
            "--release",
            "--locked",
            "--message-format=json-render-diagnostics",
        ])
        .arg("--target-dir")
        .arg(target)
        .current_dir(copy)
        .stderr(Stdio::inherit())
        .output()
        .context("failed to run cargo")?;
    ensure!(
        output.status.success(),
        "the copy with the plants does not build"
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// The folder that this program was built into.
fn target_folder() -> Result<PathBuf> {
    let program = env::current_exe()?;
    let folder = program
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").exists());
    Ok(folder
        .context("this program was not built by cargo")?
        .to_owned())
}

/// A file of the product with all plants that belong there.
fn planted(file: &Path, content: Vec<u8>) -> Result<Vec<u8>> {
    let mut of_file = all()
        .enumerate()
        .filter(|(_, plant)| Path::new(plant.file) == file)
        .peekable();
    let is_library = CRATES
        .iter()
        .any(|name| file == Path::new(name).join("src/lib.rs"));
    if of_file.peek().is_none() && !is_library {
        return Ok(content);
    }
    let mut text = String::from_utf8(content)?;
    for (number, plant) in of_file {
        let found = text.matches(plant.right).count();
        if found != 1 {
            bail!(
                "plant {}: its text is {found} times in {}",
                plant.name,
                plant.file
            );
        }
        let wrong = plant
            .wrong
            .replace(MARK, &format!("crate::plant::is({number})"));
        text = text.replace(plant.right, &wrong);
    }
    if is_library {
        text.push_str("mod plant;\n");
    }
    Ok(text.into_bytes())
}

/// The module of the copy that says which plant is in force.
fn switch() -> String {
    let names: Vec<_> = all().map(|plant| plant.name).collect();
    format!(
        "//! Which planted bug is in force.\n\
         use std::sync::LazyLock;\n\
         static IN_FORCE: LazyLock<Option<usize>> = LazyLock::new(|| {{\n\
         let name = std::env::var({VARIABLE:?}).ok()?;\n\
         let found = {names:?}.iter().position(|plant| *plant == name);\n\
         Some(found.expect(\"a plant has this name\"))\n\
         }});\n\
         pub(crate) fn is(number: usize) -> bool {{ *IN_FORCE == Some(number) }}\n"
    )
}

/// Copies a folder of the repository with the plants. What is there already is left alone, so that it is not built again;
/// what is in the repository no more, goes.
fn copy_folder(root: &Path, folder: &Path, copy: &Path) -> Result<()> {
    let mut kept = BTreeSet::from([OsString::from("plant.rs")]);
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = folder.join(entry.file_name());
        kept.insert(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(root, &name, copy)?;
        } else {
            write(&copy.join(&name), &planted(&name, fs::read(entry.path())?)?)?;
        }
    }
    let there = match fs::read_dir(copy.join(folder)) {
        Ok(there) => there,
        // A folder without files.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for entry in there {
        let entry = entry?;
        if kept.contains(&entry.file_name()) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn write(file: &Path, content: &[u8]) -> Result<()> {
    if fs::read(file).is_ok_and(|before| before == content) {
        return Ok(());
    }
    let folder = file.parent().context("a file is in a folder")?;
    fs::create_dir_all(folder)?;
    fs::write(file, content).with_context(|| format!("failed to write {}", file.display()))
}

fn link(from: &Path, to: &Path) -> Result<()> {
    if fs::read_link(to).is_ok_and(|before| before == from) {
        return Ok(());
    }
    let folder = to.parent().context("a link is in a folder")?;
    fs::create_dir_all(folder)?;
    match fs::remove_file(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    symlink(from, to).with_context(|| format!("failed to link {}", to.display()))
}
