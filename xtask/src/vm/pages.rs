//! Pages of `docs/` that the guest makes of what it sees: its console has them line by line, each behind `page PATH
//! PART/PARTS|`. A page all of whose parts are there is held against the file, or with `--bless` written into it.
//!
//! Deliberately absent: what is on a page. The guest's tests make it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::command::Tally;

/// Compares the pages in a console's log with those in the workspace; each is a test. `bless` writes them instead.
pub(crate) fn settle(console: &str, workspace: &Path, bless: bool) -> Result<Tally> {
    let mut tally = Tally::default();
    for (path, text) in pages(console) {
        let file = workspace.join(&path);
        let kept = fs::read_to_string(&file).unwrap_or_default();
        if kept == text {
            println!("  ok {path} is what the guest printed");
        } else if bless {
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
            println!("  ok {path} is written anew");
        } else {
            println!("  not ok {path} is not what the guest printed; this writes it: cargo xtask vm --bless");
            tally.failed += 1;
            continue;
        }
        tally.passed += 1;
    }
    Ok(tally)
}

/// The whole pages of a console's log, by their paths.
fn pages(console: &str) -> BTreeMap<String, String> {
    let mut found: BTreeMap<&str, (usize, BTreeMap<usize, String>)> = BTreeMap::new();
    for (path, part, parts, text) in console.lines().filter_map(line) {
        let (wanted, page) = found.entry(path).or_default();
        *wanted = parts;
        let part = page.entry(part).or_default();
        part.push_str(text);
        part.push('\n');
    }
    let whole = found.into_iter().filter(|(_, (wanted, page))| page.len() == *wanted);
    whole.map(|(path, (_, page))| (path.to_string(), page.into_values().collect())).collect()
}

/// The path, the part, the number of parts and the text of a page's line. Paths lead into `docs/` alone.
fn line(line: &str) -> Option<(&str, usize, usize, &str)> {
    let (head, text) = line.strip_prefix("page ")?.split_once('|')?;
    let (path, place) = head.split_once(' ')?;
    let (part, parts) = place.split_once('/')?;
    let name = path.strip_prefix("docs/")?;
    let is_ours = !name.contains('/') && name.ends_with(".md");
    is_ours.then_some((path, part.parse().ok()?, parts.parse().ok()?, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_is_put_together_from_its_parts_whatever_stands_between() {
        let console = "\
ok one
page docs/a.md 2/2|# second
page docs/a.md 1/2|first
page docs/b.md 1/2|half of it
page docs/a.md 1/2|
[  1.0] something of the kernel
page docs/a.md 1/2|| a | table |
2 passed, 0 failed
";
        let whole = BTreeMap::from([("docs/a.md".into(), "first\n\n| a | table |\n# second\n".into())]);
        assert_eq!(pages(console), whole);
    }

    #[test]
    fn path_that_leads_elsewhere_is_no_page() {
        for path in ["docs/../a.md", "/etc/a.md", "docs/a.rs", "src/a.md"] {
            assert_eq!(line(&format!("page {path} 1/1|text")), None, "{path}");
        }
    }

    #[test]
    fn page_that_is_another_one_is_a_failure_until_it_is_blessed() {
        let folder = std::env::temp_dir().join(format!("vfio-migration-pages-{}", std::process::id()));
        fs::create_dir_all(folder.join("docs")).unwrap();
        let settle = |bless| super::settle("page docs/a.md 1/1|text\n", &folder, bless).unwrap();
        let tallies = [false, true, false].map(settle);
        fs::remove_dir_all(&folder).unwrap();
        let (good, bad) = (Tally { passed: 1, failed: 0 }, Tally { passed: 0, failed: 1 });
        assert_eq!(tallies, [bad, good, good]);
    }
}
