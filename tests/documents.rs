//! The pages, held against the code.

use std::fs;
use std::path::{Path, PathBuf};

/// Fewer characters between two values say nothing.
const TELLING: usize = 9;

/// As much of a line stands on the page at least.
const SHOWN: usize = 20;

fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // The trials are for developers.
        let is_wanted = !path.ends_with("tests") && !path.ends_with("trials");
        match path.is_dir() {
            true if is_wanted => sources(&path, files),
            false if path.extension().is_some_and(|name| name == "rs") => files.push(path),
            _ => {}
        }
    }
}

/// The texts between the values of each warning and error that this code logs.
fn logged(code: &str) -> Vec<Vec<String>> {
    let calls = ["log::warn!(", "log::error!("].map(|call| code.split(call).skip(1));
    let texts = calls.into_iter().flatten().filter_map(|rest| {
        let text = rest.trim_start().strip_prefix('"')?;
        let end = (0..text.len()).find(|&at| text[at..].starts_with('"') && !text[..at].ends_with('\\'))?;
        // A line that goes on in the next one.
        let lines: Vec<_> = text[..end].split("\\\n").map(str::trim_start).collect();
        let parts = lines.concat();
        let parts = parts
            .split('{')
            .map(|part| part.split_once('}').map_or(part, |(_, rest)| rest));
        let parts: Vec<String> = parts
            .map(|part| part.trim_matches([' ', ':', ',', ';']).to_owned())
            .collect();
        Some(parts.into_iter().filter(|part| part.len() >= TELLING).collect())
    });
    texts.collect()
}

#[test]
fn each_line_of_the_log_stands_on_a_page() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    let pages =
        ["operating", "security"].map(|page| fs::read_to_string(root.join(format!("src/docs/{page}.md"))).unwrap());
    let pages = pages.concat();
    let mut count = 0;
    for file in files {
        for parts in logged(&fs::read_to_string(&file).unwrap())
            .iter()
            .filter(|parts| !parts.is_empty())
        {
            let stands = |part: &String| pages.contains(part.get(..SHOWN).unwrap_or(part));
            assert!(parts.iter().any(stands), "{}: {parts:?} is on no page", file.display());
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
}
