//! Debian packages without installing them: a package manager's state of our own, verified
//! downloads, unpacked into folders.
//!
//! Deliberately absent: a mirror's name. The machine's own sources say where Debian is, only the suites are ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command;

/// A private state of apt that knows some suites of Debian and believes nothing to be installed.
pub(crate) struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Sets up the state in `folder` and reads the package lists of `suites`. A mirror that lacks one is an error.
    pub(crate) fn new(folder: &Path, suites: &[&str]) -> Result<Self> {
        let apt = Self { folder: folder.to_path_buf() };
        for part in ["state/lists/partial", "archives/partial", "sources"] {
            fs::create_dir_all(folder.join(part))?;
        }
        fs::write(folder.join("status"), "")?;
        fs::write(folder.join("apt.conf"), apt.configuration()?)?;
        fs::write(folder.join("sources/debian.sources"), sources(&machine_sources()?, suites)?)?;
        command::output(apt.get().args(["update", "--error-on=any"])).with_context(|| {
            format!("cannot read Debian's package lists: wanted {}", suites.join(" and "))
        })?;
        Ok(apt)
    }

    /// The names of the known packages that begin with `prefix`.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = command::output(self.command("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_string).collect())
    }

    /// Downloads these packages alone and unpacks them into `prefix`.
    pub(crate) fn unpack(&self, packages: &[String], prefix: &Path) -> Result<()> {
        let archives = self.archives()?;
        command::output(self.get().arg("download").args(packages).current_dir(&archives))?;
        unpack_all(&archives, prefix)
    }

    /// Downloads a package with all that it depends on, from `suite` where that has them, and unpacks them into `prefix`.
    pub(crate) fn unpack_with_dependencies(&self, package: &str, suite: &str, prefix: &Path) -> Result<()> {
        let archives = self.archives()?;
        let flags = ["install", "--yes", "--no-install-recommends", "--download-only"];
        command::output(self.get().args(flags).args(["--target-release", suite, package]))?;
        unpack_all(&archives, prefix)
    }

    fn get(&self) -> Command {
        self.command("apt-get")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").arg("-c").arg(self.folder.join("apt.conf"));
        command
    }

    /// The folder for downloads, empty.
    fn archives(&self) -> Result<PathBuf> {
        let archives = self.folder.join("archives");
        fs::remove_dir_all(&archives)?;
        fs::create_dir_all(archives.join("partial"))?;
        Ok(archives)
    }

    /// apt verifies each package by the suite's signature; a mirror may be frozen past the day until
    /// which its suites count as fresh, so that day is not checked.
    fn configuration(&self) -> Result<String> {
        let folder = self.folder.to_str().context("the cache folder's path is not UTF-8")?;
        Ok(format!(
            r#"Dir::State "{folder}/state/";
Dir::State::Lists "{folder}/state/lists/";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/";
Dir::Cache::archives "{folder}/archives/";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{folder}/sources/";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Architecture "amd64";
APT::Architectures "amd64";
APT::Keep-Downloaded-Packages "true";
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
"#
        ))
    }
}

/// One entry of the machine's package sources: its fields in their order.
type Stanza = Vec<(String, String)>;

/// Unpacks every package in a folder into `prefix`.
fn unpack_all(archives: &Path, prefix: &Path) -> Result<()> {
    fs::create_dir_all(prefix)?;
    for entry in fs::read_dir(archives)? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            command::output(Command::new("dpkg").arg("-x").arg(file).arg(prefix))?;
        }
    }
    Ok(())
}

/// All entries of the machine's own sources, of both notations.
fn machine_sources() -> Result<Vec<Stanza>> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    let parts = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten();
    files.extend(parts.filter_map(|entry| Some(entry.ok()?.path())));
    let mut stanzas = Vec::new();
    for file in files.iter().filter(|file| file.is_file()) {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => stanzas.extend(text.lines().filter_map(parse_line)),
            Some("sources") => stanzas.extend(parse_stanzas(&text)),
            _ => {}
        }
    }
    Ok(stanzas)
}

/// Reads entries of `field: value` lines, in which indented lines continue a value.
fn parse_stanzas(text: &str) -> Vec<Stanza> {
    let mut stanzas = vec![Stanza::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let stanza = stanzas.last_mut().expect("never empty");
        if line.trim().is_empty() {
            stanzas.push(Stanza::new());
        } else if let (true, Some((_, value))) = (line.starts_with([' ', '\t']), stanza.last_mut()) {
            *value = format!("{value}\n{line}");
        } else if let Some((field, value)) = line.split_once(':') {
            stanza.push((field.trim().to_string(), value.trim().to_string()));
        }
    }
    stanzas.retain(|stanza| !stanza.is_empty());
    stanzas
}

/// Reads `deb [option=value ...] URI SUITE COMPONENT...`; nothing else is of use here.
fn parse_line(line: &str) -> Option<Stanza> {
    let rest = line.trim().strip_prefix("deb ")?.trim();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    let mut stanza = vec![
        ("URIs".to_string(), words.next()?.to_string()),
        ("Suites".to_string(), words.next()?.to_string()),
    ];
    for (name, value) in options.split_whitespace().filter_map(|option| option.split_once('=')) {
        match name {
            "signed-by" => stanza.push(("Signed-By".to_string(), value.to_string())),
            "trusted" => stanza.push(("Trusted".to_string(), value.to_string())),
            _ => {}
        }
    }
    Some(stanza)
}

/// Our own sources: the machine's entries for Debian and its security updates, with our suites. Backports have no
/// security updates of their own.
fn sources(machine: &[Stanza], suites: &[&str]) -> Result<String> {
    let Some(main) = machine.iter().find(|stanza| has_suite(stanza, "")) else {
        bail!("the machine's apt sources name no Debian mirror: wanted an entry with a suite like bookworm");
    };
    let mut text = with_suites(main, &suites.join(" "));
    if let Some(security) = machine.iter().find(|stanza| has_suite(stanza, "-security")) {
        let releases = suites.iter().filter(|suite| RELEASES.contains(suite));
        let updates: Vec<_> = releases.map(|suite| format!("{suite}-security")).collect();
        text += &with_suites(security, &updates.join(" "));
    }
    Ok(text)
}

/// True when the entry offers a suite of Debian with this ending.
fn has_suite(stanza: &Stanza, ending: &str) -> bool {
    let is_suites = |field: &str| field.eq_ignore_ascii_case("Suites");
    let suites =
        stanza.iter().filter(|(field, _)| is_suites(field)).flat_map(|(_, value)| value.split_whitespace());
    suites.filter_map(|suite| suite.strip_suffix(ending)).any(|stem| RELEASES.contains(&stem))
}

/// The entry's place and keys, with our suites and Debian's main component.
fn with_suites(stanza: &Stanza, suites: &str) -> String {
    let kept = ["URIs", "Signed-By", "Trusted"];
    let fields = stanza.iter().filter(|(field, _)| kept.iter().any(|name| field.eq_ignore_ascii_case(name)));
    let fields: String = fields.map(|(field, value)| format!("{field}: {value}\n")).collect();
    format!("Types: deb\n{fields}Suites: {suites}\nComponents: main\n\n")
}

/// By these names of suites an entry is known to be Debian's.
const RELEASES: [&str; 9] =
    ["bullseye", "bookworm", "trixie", "forky", "sid", "oldstable", "stable", "testing", "unstable"];

#[cfg(test)]
mod tests {
    use super::*;

    const STANZAS: &str = "\
Types: deb
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By:
 -----BEGIN
 .

Types: deb
URIs: http://mirror.example/security
Suites: bookworm-security
Components: main
";

    #[test]
    fn stanzas_keep_their_place_and_keys_and_change_their_suites() {
        let wanted = "\
Types: deb
URIs: http://mirror.example/debian
Signed-By: \n -----BEGIN\n .
Suites: trixie trixie-backports
Components: main

Types: deb
URIs: http://mirror.example/security
Suites: trixie-security
Components: main

";
        assert_eq!(sources(&parse_stanzas(STANZAS), &["trixie", "trixie-backports"]).unwrap(), wanted);
    }

    #[test]
    fn classic_lines_say_the_same_as_stanzas() {
        let line = "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian trixie main contrib";
        let wanted = "\
Types: deb
URIs: http://mirror.example/debian
Signed-By: /k.gpg
Suites: bookworm
Components: main

";
        assert_eq!(sources(&[parse_line(line).unwrap()], &["bookworm"]).unwrap(), wanted);
    }

    #[test]
    fn sources_of_others_are_no_debian_mirror() {
        let line = parse_line("deb http://tools.example/apt tools-bookworm main").unwrap();
        assert!(sources(&[line], &["bookworm"]).is_err());
    }

    #[test]
    fn comments_and_source_packages_are_no_entry() {
        assert_eq!(parse_line("# deb http://mirror.example/debian bookworm main"), None);
        assert_eq!(parse_line("deb-src http://mirror.example/debian bookworm main"), None);
    }
}
