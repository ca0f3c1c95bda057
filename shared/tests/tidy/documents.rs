//! The rules of what is written for people: what is cited exists, what is configured is described, decisions are cited
//! by their record.

use std::collections::BTreeSet;

use super::{Tree, literals};

/// Neither what is cited as an example by the tests of these checks, nor the text of documents that are written by a
/// test and checked where they are, nor lists of names.
fn is_exempt(path: &str) -> bool {
    path.starts_with("shared/tests/tidy")
        || path.starts_with("shared/tests/documents")
        || path == "Cargo.lock"
}

/// Every `….md` of a file, with the number of its line: the longest run of a path's letters that ends so, or the target
/// of a link with its anchor.
fn cited(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for (at, _) in line.match_indices(".md") {
            let end = at + ".md".len();
            let is_end = !line[end..].starts_with(|letter: char| letter.is_alphanumeric());
            let is_of_path = |letter: char| {
                letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '/' | '.')
            };
            let start = line[..at]
                .rfind(|letter| !is_of_path(letter))
                .map_or(0, |before| {
                    before + line[before..].chars().next().map_or(1, char::len_utf8)
                });
            let is_address = line[..start].ends_with(':') && line[start..].starts_with("//");
            // `*.md`, `NNNN-*.md`, `<name>.md`: a pattern.
            let is_pattern = line[..start].ends_with(['*', '>', '}', '…']) || start == at;
            if is_end && !is_address && !is_pattern {
                let anchor = line[end..]
                    .find(|letter: char| {
                        !letter.is_ascii_alphanumeric() && !matches!(letter, '#' | '-' | '_')
                    })
                    .map_or(line.len(), |length| end + length);
                found.push((number + 1, &line[start..anchor]));
            }
        }
    }
    found
}

/// `docs/adr/0001-x.md` for `../ledger.md` seen from there: `docs/ledger.md`.
fn beside(file: &str, target: &str) -> String {
    let mut parts: Vec<&str> = file.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The anchor a heading gets.
fn anchor_of(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter_map(|letter| match letter {
            ' ' => Some('-'),
            letter if letter.is_alphanumeric() || matches!(letter, '-' | '_') => Some(letter),
            _ => None,
        })
        .collect()
}

/// A document is cited by its path from the root, in another document also from there or by its name alone; its headings
/// by their anchors.
pub(super) fn cited_documents_exist(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in tree.files.iter().filter(|(path, _)| !is_exempt(path)) {
        for (line, target) in cited(text) {
            let (target, anchor) = target.split_once('#').unwrap_or((target, ""));
            // `concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/x.md")`.
            let from_root = target.trim_start_matches(['/', '.']).to_owned();
            let document = match path.ends_with(".md") {
                true => [beside(path, target), from_root, format!("docs/{target}")]
                    .into_iter()
                    .find(|document| tree.files.contains_key(document))
                    .unwrap_or_default(),
                false => from_root,
            };
            let Some(cited) = tree.files.get(&document) else {
                complaints.push(format!("{path}:{line}: there is no {target}"));
                continue;
            };
            let mut headings = cited.lines().filter(|line| line.starts_with('#'));
            if !anchor.is_empty() && !headings.any(|heading| anchor_of(heading) == anchor) {
                complaints.push(format!(
                    "{path}:{line}: {document} has no heading #{anchor}"
                ));
            }
        }
    }
    complaints
}

/// A decision is cited as `adr/0007`, and the record exists and stands in the index. Numbers alone say nothing.
pub(super) fn decisions_are_records(tree: &Tree) -> Vec<String> {
    let records: BTreeSet<&str> = tree
        .files
        .keys()
        .filter_map(|path| path.strip_prefix("docs/adr/")?.split_once('-'))
        .map(|(number, _)| number)
        .collect();
    let mut complaints = Vec::new();
    for (path, text) in tree.files.iter().filter(|(path, _)| !is_exempt(path)) {
        for (number, line) in text.lines().enumerate() {
            let lower = line.to_lowercase();
            let numbered = ["decision ", "decisions "].iter().any(|word| {
                lower.match_indices(word).any(|(at, _)| {
                    lower[at + word.len()..].starts_with(|c: char| c.is_ascii_digit())
                })
            });
            if numbered {
                complaints.push(format!(
                    "{path}:{}: cite a decision by its record, docs/adr/NNNN",
                    number + 1
                ));
            }
            for (at, word) in line.match_indices("adr/") {
                let rest = &line[at + word.len()..];
                let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                if digits.len() == 4 && !records.contains(digits.as_str()) {
                    complaints.push(format!("{path}:{}: there is no adr/{digits}", number + 1));
                }
            }
        }
    }
    let index = tree.get("docs/adr/README.md");
    let unlisted = records
        .iter()
        .filter(|number| !index.contains(&format!("[{number}]")))
        .map(|number| format!("docs/adr/README.md does not list {number}"));
    complaints.extend(unlisted);
    complaints
}

/// A variable of `docs/configuration.md`.
pub(super) struct Described<'a> {
    pub(super) name: &'a str,
    pub(super) read_by: &'a str,
    pub(super) is_secret: bool,
}

/// The rows of the table of variables.
pub(super) fn described(configuration: &str) -> Vec<Described<'_>> {
    configuration
        .lines()
        .filter(|line| line.starts_with("| `"))
        .filter_map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            Some(Described {
                name: cells.get(1)?.trim_matches('`'),
                read_by: cells.get(3)?,
                is_secret: *cells.get(4)? == "yes",
            })
        })
        .collect()
}

/// Where the descriptions themselves are: what stands there is not read.
pub(super) const VARIABLES: &str = "config/variables.rs";

/// What the code reads is described, what is described is read, and a function that is given a variable is said to read
/// it.
pub(super) fn configuration_is_what_is_read(tree: &Tree) -> Vec<String> {
    let is_variable = |text: &str| {
        text.contains('_')
            && !text.starts_with("CARGO_")
            && text.starts_with(|letter: char| letter.is_ascii_uppercase())
            && text
                .bytes()
                .all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_'))
    };
    let read: BTreeSet<String> = tree
        .deployed()
        .filter(|(path, _)| {
            !path.ends_with(VARIABLES)
                && !path.starts_with("shared/testing/")
                && !path.starts_with("shared/fake-stripe/")
        })
        .flat_map(|(_, tokens)| literals(tokens))
        .filter(|text| is_variable(text))
        .collect();
    let described = described(tree.get("docs/configuration.md"));
    let names: BTreeSet<&str> = described.iter().map(|one| one.name).collect();
    let mut complaints: Vec<String> = read
        .iter()
        .filter(|name| !names.contains(name.as_str()))
        .map(|name| format!("{name} is read and not described ({VARIABLES})"))
        .collect();
    for one in described.iter().filter(|one| !read.contains(one.name)) {
        complaints.push(format!("{} is described and read by nothing", one.name));
    }
    for (function, variables) in super::template::given(tree) {
        for one in &described {
            let is_said = one.read_by == "all" || one.read_by.split(", ").any(|it| it == function);
            if variables.contains(one.name) && !is_said {
                complaints.push(format!(
                    "{function} is given {} and not said to read it",
                    one.name
                ));
            }
        }
    }
    complaints
}

mod can_fail {
    use super::super::can_fail::complains;
    use super::*;

    #[test]
    fn a_document_that_is_not_there_is_found() {
        complains(
            cited_documents_exist,
            &[
                (
                    "a.rs",
                    "//! See `docs/money.md`, `money.md` and <https://x.example/y.md>.",
                ),
                (
                    "docs/money.md",
                    "# Money\n## The journal, exactly\nSee [x](adr/0001-x.md), [y](gone.md#a).",
                ),
                (
                    "docs/adr/0001-x.md",
                    "[m](../money.md#the-journal-exactly) [n](../money.md#nothing) `docs/money.md`",
                ),
                ("b.sh", "ls docs/adr/*.md"),
            ],
            &[
                "a.rs:1: there is no money.md",
                "docs/adr/0001-x.md:1: docs/money.md has no heading #nothing",
                "docs/money.md:3: there is no gone.md",
            ],
        );
    }

    #[test]
    fn a_decision_without_its_record_is_found() {
        complains(
            decisions_are_records,
            &[
                (
                    "a.rs",
                    "/// As decision 16 says.\n/// See docs/adr/0001 and adr/0002.",
                ),
                ("docs/adr/0001-x.md", ""),
                ("docs/adr/0003-y.md", ""),
                ("docs/adr/README.md", "| [0001](0001-x.md) |"),
            ],
            &[
                "a.rs:1: cite a decision",
                "a.rs:2: there is no adr/0002",
                "does not list 0003",
            ],
        );
    }

    #[test]
    fn a_variable_on_one_side_only_is_found() {
        complains(
            configuration_is_what_is_read,
            &[
                (
                    "docs/configuration.md",
                    "| `READ_HERE` | | a | | |\n| `READ_NOWHERE` | | a | | |\n",
                ),
                (
                    "functions/a/src/lib.rs",
                    "fn f() { g(\"READ_HERE\"); g(\"NOT_SAID\"); g(env!(\"CARGO_PKG\")) }",
                ),
                ("template.yaml", "Resources: {}"),
            ],
            &[
                "NOT_SAID is read and not described",
                "READ_NOWHERE is described and read by nothing",
            ],
        );
    }
}
