//! The rules of the code base a compiler cannot check. Each check is a function from a tree of
//! files to a list of complaints; it runs on this repository and, in [`can_fail`], on small trees
//! that break it.
#![expect(
    clippy::unwrap_used,
    reason = "a repository that cannot be read is a failed test"
)]

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use saphyr::{LoadableYamlNode, Yaml};

#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/migrations.rs"]
mod migrations;
#[path = "tidy/template.rs"]
mod template;

/// The visible top level; the second half only when there is something in it.
const TOP_LEVEL: [&str; 10] = [
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "events",
    "functions",
    "migrations",
    "rust-toolchain.toml",
    "shared",
    "template.yaml",
];
const TOP_LEVEL_OPTIONAL: [&str; 2] = ["docs", "target"];

/// The functions in the order in which they are listed wherever they are listed.
const FUNCTIONS: [&str; 10] = [
    "webhook",
    "admin-revenue",
    "usage",
    "partner-invoicing",
    "invoice-pdf",
    "reconciliation",
    "notifications",
    "dunning",
    "migrate",
    "local",
];

/// The crates that the domain may depend on: none of them does I/O.
const DOMAIN_CRATES: [&str; 10] = [
    "serde_path_to_error",
    "jiff",
    "rust_decimal",
    "serde",
    "serde_json",
    "strum",
    "thiserror",
    "num-rational",
    "num-traits",
    "utoipa",
];

const VAGUE_NAMES: [&str; 8] = [
    "util", "utils", "helper", "helpers", "common", "misc", "types", "models",
];

const MAIN_LINES: usize = 40;

type Check = fn(&Tree) -> Vec<String>;

const CHECKS: [(&str, Check); 28] = [
    ("top_level", top_level),
    ("file_names", file_names),
    ("first_lines", first_lines),
    ("main_is_short", main_is_short),
    ("domain_is_pure", domain_is_pure),
    ("functions_stand_alone", functions_stand_alone),
    ("attributes", attributes),
    ("sql_names_its_function", sql_names_its_function),
    ("sql_names_its_columns", sql_names_its_columns),
    ("sql_stays_in_the_store", sql_stays_in_the_store),
    (
        "migrations_have_no_gaps",
        migrations::migrations_have_no_gaps,
    ),
    (
        "migrations_run_under_live_functions",
        migrations::migrations_run_under_live_functions,
    ),
    ("functions_have_a_hash", migrations::functions_have_a_hash),
    ("samples_are_used", samples_are_used),
    ("template_lists_the_functions", template_lists_the_functions),
    ("no_machine_paths", no_machine_paths),
    ("cited_documents_exist", documents::cited_documents_exist),
    ("decisions_are_records", documents::decisions_are_records),
    (
        "configuration_is_what_is_read",
        documents::configuration_is_what_is_read,
    ),
    ("functions_are_complete", template::functions_are_complete),
    (
        "no_secret_is_in_the_template",
        template::no_secret_is_in_the_template,
    ),
    ("secrets_are_those_read", template::secrets_are_those_read),
    ("policies_are_the_calls", template::policies_are_the_calls),
    ("schedules_are_complete", template::schedules_are_complete),
    (
        "nothing_is_lost_silently",
        template::nothing_is_lost_silently,
    ),
    ("alarms_are_explained", template::alarms_are_explained),
    ("openapi_is_the_template", template::openapi_is_the_template),
    (
        "domain_events_have_samples",
        template::domain_events_have_samples,
    ),
];

#[test]
fn the_repository_is_tidy() {
    let tree = Tree::of_repository();
    let complaints: Vec<String> = CHECKS
        .iter()
        .flat_map(|(name, check)| {
            check(&tree)
                .into_iter()
                .map(move |text| format!("{name}: {text}"))
        })
        .collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// The repository's visible text files, and dot-files at the top, by path with `/`.
#[derive(Default)]
struct Tree {
    files: BTreeMap<String, String>,
    /// The tokens of those that are Rust, once a check has asked for them.
    rust: OnceCell<Vec<(String, TokenStream)>>,
}

impl Tree {
    fn of_repository() -> Tree {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut files = BTreeMap::new();
        walk(root, root, &mut files);
        Tree {
            files,
            ..Tree::default()
        }
    }

    fn get(&self, path: &str) -> &str {
        self.files.get(path).map_or("", String::as_str)
    }

    fn rust(&self) -> impl Iterator<Item = (&str, TokenStream)> {
        let rust = self.rust.get_or_init(|| {
            let rust = self.files.iter().filter(|(path, _)| path.ends_with(".rs"));
            rust.map(|(path, text)| (path.clone(), tokens(path, text)))
                .collect()
        });
        rust.iter()
            .map(|(path, tokens)| (path.as_str(), tokens.clone()))
    }

    /// Rust that is deployed: `src/` without `#[cfg(test)]` items, the local bundle, the support for tests and the fake
    /// Stripe.
    fn deployed(&self) -> impl Iterator<Item = (&str, TokenStream)> {
        self.rust()
            .filter(|(path, _)| {
                path.contains("/src/")
                    && !path.starts_with("functions/local/")
                    && !path.starts_with("shared/testing/")
                    && !path.starts_with("shared/fake-stripe/")
            })
            .map(|(path, tokens)| (path, split_tests(tokens).0))
    }

    /// Names of the folders of `functions/`, in the agreed order, unknown ones last.
    fn functions(&self) -> Vec<&str> {
        let found: BTreeSet<&str> = self
            .files
            .keys()
            .filter_map(|path| {
                path.strip_prefix("functions/")?
                    .split_once('/')
                    .map(|(name, _)| name)
            })
            .collect();
        let mut found: Vec<&str> = found.into_iter().collect();
        found.sort_by_key(|name| {
            FUNCTIONS
                .iter()
                .position(|known| known == name)
                .unwrap_or(usize::MAX)
        });
        found
    }
}

fn walk(root: &Path, folder: &Path, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path
            .strip_prefix(root)
            .unwrap()
            .to_str()
            .unwrap()
            .replace('\\', "/");
        // Build products, what a deploy remembers, and the version control's and editors' own files.
        if name.starts_with(".git/")
            || matches!(
                name.as_str(),
                "target" | ".aws-sam" | "samconfig.toml" | ".git" | ".idea"
            )
        {
            continue;
        }
        if path.is_dir() {
            walk(root, &path, files);
        } else {
            // A file that is not text still has a name.
            files.insert(name, fs::read_to_string(&path).unwrap_or_default());
        }
    }
}

// Layout.

fn top_level(tree: &Tree) -> Vec<String> {
    let found: BTreeSet<&str> = tree
        .files
        .keys()
        .map(|path| path.split_once('/').map_or(path.as_str(), |(top, _)| top))
        .filter(|name| !name.starts_with('.'))
        .collect();
    let missing = TOP_LEVEL
        .iter()
        .filter(|name| !found.contains(**name))
        .map(|name| format!("{name} is missing"));
    let extra = found
        .iter()
        .filter(|name| !TOP_LEVEL.contains(name) && !TOP_LEVEL_OPTIONAL.contains(name))
        .map(|name| format!("{name} does not belong at the top"));
    missing.chain(extra).collect()
}

fn file_names(tree: &Tree) -> Vec<String> {
    tree.files
        .keys()
        .filter(|path| {
            path.split('/').any(|part| {
                let stem = part.split_once('.').map_or(part, |(stem, _)| stem);
                VAGUE_NAMES.contains(&stem.to_lowercase().as_str())
            })
        })
        .map(|path| format!("{path} is named for nothing in particular"))
        .collect()
}

fn first_lines(tree: &Tree) -> Vec<String> {
    tree.files
        .iter()
        .filter(|(path, text)| path.ends_with(".rs") && !text.starts_with("//! "))
        .map(|(path, _)| format!("{path} does not say in its first line (`//! …`) what it is"))
        .collect()
}

fn main_is_short(tree: &Tree) -> Vec<String> {
    tree.files
        .iter()
        .filter(|(path, _)| path.starts_with("functions/") && path.ends_with("/src/main.rs"))
        .filter(|(_, text)| text.lines().count() > MAIN_LINES)
        .map(|(path, text)| {
            format!(
                "{path} has {} lines, more than {MAIN_LINES}",
                text.lines().count()
            )
        })
        .collect()
}

// Who may use whom. Cargo enforces the layers; what it cannot see stands here.

fn domain_is_pure(tree: &Tree) -> Vec<String> {
    let manifest = "shared/domain/Cargo.toml";
    let mut complaints: Vec<String> = dependencies(tree.get(manifest))
        .into_iter()
        .filter(|name| !DOMAIN_CRATES.contains(&name.as_str()))
        .map(|name| format!("{manifest}: `{name}`: the domain does not talk to the outside"))
        .collect();
    for (path, tokens) in tree.deployed() {
        if !path.starts_with("shared/domain/") {
            continue;
        }
        let mut flat = Vec::new();
        flatten(tokens, &mut flat);
        for (index, token) in flat.iter().enumerate() {
            let TokenTree::Ident(ident) = token else {
                continue;
            };
            let name = ident.to_string();
            let after_path = index >= 2 && is_path_separator(&flat, index - 2);
            let before_path = is_path_separator(&flat, index + 1);
            let why = match name.as_str() {
                "async" | "await" => "does not wait",
                "f32" | "f64" => "has no floats",
                "SystemTime" | "Instant" => "reads no clock",
                "now" if after_path => "reads no clock",
                "env" if after_path || before_path => "reads no environment",
                "println" | "eprintln" | "print" | "eprint" => "does no output",
                _ => continue,
            };
            complaints.push(format!("{path}: `{name}`: the domain {why}"));
        }
    }
    complaints
}

fn functions_stand_alone(tree: &Tree) -> Vec<String> {
    let functions = tree.functions();
    let mut complaints: Vec<String> = functions
        .iter()
        .filter(|name| !FUNCTIONS.contains(name))
        .map(|name| format!("functions/{name} is not a function of the bundle"))
        .collect();
    for function in functions.iter().filter(|name| **name != "local") {
        let manifest = format!("functions/{function}/Cargo.toml");
        for used in dependencies(tree.get(&manifest)) {
            if FUNCTIONS.contains(&used.as_str()) {
                complaints.push(format!("{manifest} depends on the function {used}"));
            }
        }
    }
    let manifest = "shared/Cargo.toml";
    for used in dependencies(tree.get(manifest)) {
        if FUNCTIONS.contains(&used.as_str()) {
            complaints.push(format!("{manifest} depends on the function {used}"));
        }
    }
    complaints
}

/// What the built crate links: `[dependencies]`, not `[dev-dependencies]`.
fn dependencies(manifest: &str) -> Vec<String> {
    let manifest: toml::Table = manifest.parse().unwrap();
    manifest
        .get("dependencies")
        .and_then(toml::Value::as_table)
        .map(|table| table.keys().cloned().collect())
        .unwrap_or_default()
}

fn attributes(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, tokens) in tree.rust() {
        let mut flat = Vec::new();
        flatten(tokens, &mut flat);
        for (index, token) in flat.iter().enumerate() {
            let TokenTree::Group(group) = token else {
                continue;
            };
            let behind_hash = index >= 1 && is_punct(&flat[index - 1], '#')
                || index >= 2 && is_punct(&flat[index - 1], '!') && is_punct(&flat[index - 2], '#');
            if group.delimiter() != Delimiter::Bracket || !behind_hash {
                continue;
            }
            let mut inside = Vec::new();
            flatten(group.stream(), &mut inside);
            let conditional = inside
                .first()
                .is_some_and(|first| is_ident(first, "cfg_attr"));
            let looked_at = if conditional { inside.len() } else { 1 };
            for name in inside.iter().take(looked_at) {
                if is_ident(name, "allow") {
                    complaints.push(format!(
                        "{path}: #[allow]; use #[expect(…, reason = \"…\")]"
                    ));
                }
                if is_ident(name, "ignore") {
                    complaints.push(format!("{path}: #[ignore]: a test runs or is deleted"));
                }
            }
        }
    }
    complaints
}

// SQL.

fn is_sql(text: &str) -> bool {
    let first = text
        .trim_start()
        .split(|letter: char| !letter.is_ascii_alphabetic())
        .next()
        .unwrap_or_default();
    let statement = [
        "SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "MERGE", "TRUNCATE", "LOCK",
    ];
    // One word is a name, not a statement.
    statement.contains(&first) && text.trim().contains(' ')
}

/// `Some(("invoices", "upsert"))` of `-- invoices::upsert`.
fn named_statement(text: &str) -> Option<(&str, &str)> {
    text.lines()
        .next()?
        .strip_prefix("-- ")?
        .trim()
        .split_once("::")
}

/// `invoices` of `shared/store/src/invoices.rs`, `store` of `shared/store/src/lib.rs`.
fn stem(path: &str) -> &str {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let path = path.strip_suffix("/src/lib").unwrap_or(path);
    path.rsplit('/').next().unwrap_or(path)
}

/// Have the text of the database's functions, whose statements have no name of their own.
const SQL_OF_FUNCTIONS: [&str; 2] = [
    "shared/store/src/ledger/functions.rs",
    "shared/store/src/mirror.rs",
];

fn sql_names_its_function(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, tokens) in tree.deployed().filter(|(path, _)| {
        path.starts_with("shared/store/src") && !SQL_OF_FUNCTIONS.contains(path)
    }) {
        let mut flat = Vec::new();
        flatten(tokens.clone(), &mut flat);
        let functions: BTreeSet<String> = flat
            .windows(2)
            .filter(|pair| is_ident(&pair[0], "fn"))
            .map(|pair| pair[1].to_string())
            .collect();
        for text in literals(tokens) {
            if let Some((module, function)) = named_statement(&text) {
                if module != stem(path) || !functions.contains(function) {
                    complaints.push(format!("{path}: there is no {module}::{function} here"));
                }
            } else if is_sql(&text) {
                complaints.push(format!(
                    "{path}: a statement without its name: {}",
                    start(&text)
                ));
            }
        }
    }
    complaints
}

fn sql_names_its_columns(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, tokens) in tree.deployed() {
        for text in literals(tokens) {
            let words: Vec<String> = text
                .split_whitespace()
                .map(|word| word.trim_matches(|letter| matches!(letter, '(' | ')' | ',' | ';')))
                .map(str::to_lowercase)
                .collect();
            let star = words.windows(2).any(|pair| {
                matches!(pair[0].as_str(), "select" | "distinct" | "returning")
                    && (pair[1] == "*" || pair[1].ends_with(".*"))
            });
            if star {
                complaints.push(format!(
                    "{path}: columns are listed, never `*`: {}",
                    start(&text)
                ));
            }
        }
    }
    complaints
}

fn sql_stays_in_the_store(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, tokens) in tree
        .deployed()
        .filter(|(path, _)| !path.starts_with("shared/store/src"))
    {
        for text in literals(tokens) {
            if is_sql(&text) || named_statement(&text).is_some() {
                complaints.push(format!(
                    "{path}: SQL belongs to shared/store/src: {}",
                    start(&text)
                ));
            }
        }
    }
    complaints
}

fn start(text: &str) -> String {
    text.split_whitespace()
        .take(6)
        .collect::<Vec<_>>()
        .join(" ")
}

// Samples.

/// A sample counts as used when a string in a test is its file name (with or without `.json`, a
/// folder before it or not), or a pattern it fits (`stripe_*_basil`), or, in a file that walks the
/// folder with `samples()`, what its name begins with (`stripe_`).
fn samples_are_used(tree: &Tree) -> Vec<String> {
    let mut patterns = BTreeSet::new();
    for (path, tokens) in tree
        .rust()
        .filter(|(path, _)| *path != "shared/tests/tidy.rs")
    {
        let tests = if path.contains("/tests/") {
            tokens
        } else {
            split_tests(tokens).1
        };
        let mut flat = Vec::new();
        flatten(tests.clone(), &mut flat);
        let walks = flat.iter().any(|token| is_ident(token, "samples"));
        patterns.extend(literals(tests).into_iter().map(|text| {
            let last = text.rsplit('/').next().unwrap_or(&text);
            let name = last.strip_suffix(".json").unwrap_or(last);
            if walks && name.ends_with('_') {
                format!("{name}*")
            } else {
                name.to_owned()
            }
        }));
    }
    // `*` alone is no name of anything.
    patterns.remove("*");
    tree.files
        .keys()
        .filter_map(|path| path.strip_prefix("events/")?.strip_suffix(".json"))
        .filter(|name| !patterns.iter().any(|pattern| fits(pattern, name)))
        .map(|name| format!("events/{name}.json is used by no test"))
        .collect()
}

/// `*` stands for any text; the whole of `text` has to fit.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            rest.char_indices()
                .map(|(at, _)| at)
                .chain([rest.len()])
                .any(|at| fits(after, &rest[at..]))
        }),
    }
}

// template.yaml. Its routes are compared with the functions' by functions/local/tests/suite/routes.rs.

struct Deployed {
    resource: String,
    function: String,
}

/// The functions of the template in its order.
fn deployed_functions(template: &str) -> Vec<Deployed> {
    let documents = Yaml::load_from_str(template).unwrap();
    let resources = documents
        .first()
        .and_then(|root| root.as_mapping_get("Resources"));
    let Some(resources) = resources.and_then(Yaml::as_mapping) else {
        return Vec::new();
    };
    let text = |node: Option<&Yaml<'_>>| node.and_then(Yaml::as_str).unwrap_or_default().to_owned();
    resources
        .iter()
        .filter(|(_, resource)| {
            text(resource.as_mapping_get("Type")) == "AWS::Serverless::Function"
        })
        .map(|(name, resource)| {
            let binary = resource
                .as_mapping_get("Metadata")
                .and_then(|metadata| metadata.as_mapping_get("BuildProperties"))
                .and_then(|build| build.as_mapping_get("Binary"));
            Deployed {
                resource: text(Some(name)),
                function: text(binary),
            }
        })
        .collect()
}

fn template_lists_the_functions(tree: &Tree) -> Vec<String> {
    let expected: Vec<&str> = tree
        .functions()
        .into_iter()
        .filter(|name| *name != "local")
        .collect();
    let functions = deployed_functions(tree.get("template.yaml"));
    let mut complaints: Vec<String> = functions
        .iter()
        .filter(|found| found.function.is_empty())
        .map(|found| format!("{} names no binary in its Metadata", found.resource))
        .collect();
    let found: Vec<&str> = functions
        .iter()
        .map(|found| found.function.as_str())
        .collect();
    if found != expected {
        complaints.push(format!(
            "template.yaml deploys {found:?}, functions/ holds {expected:?} (in that order)"
        ));
    }
    complaints
}

fn no_machine_paths(tree: &Tree) -> Vec<String> {
    // Put together here, so that this file does not complain about itself.
    let homes = ["root", "home", "Users", "work"].map(|name| format!("/{name}/"));
    let mut complaints = Vec::new();
    for (path, text) in tree
        .files
        .iter()
        .filter(|(path, _)| path.as_str() != "Cargo.lock")
    {
        for (number, line) in text.lines().enumerate() {
            let found = homes.iter().any(|home| {
                line.match_indices(home.as_str()).any(|(at, _)| {
                    // Inside a longer path or an address it is a folder's name like any other.
                    !line[..at].ends_with(|letter: char| {
                        letter.is_alphanumeric() || matches!(letter, '.' | '}' | '-' | '_')
                    })
                })
            });
            if found {
                complaints.push(format!(
                    "{path}:{}: a path of somebody's machine",
                    number + 1
                ));
            }
        }
    }
    complaints
}

// Reading Rust.

fn tokens(path: &str, text: &str) -> TokenStream {
    text.parse()
        .unwrap_or_else(|error| panic!("{path} is not Rust: {error}"))
}

/// Every token in order; a group stands before its contents.
fn flatten(tokens: TokenStream, flat: &mut Vec<TokenTree>) {
    for token in tokens {
        if let TokenTree::Group(group) = &token {
            let inner = group.stream();
            flat.push(token.clone());
            flatten(inner, flat);
        } else {
            flat.push(token);
        }
    }
}

fn is_ident(token: &TokenTree, name: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == name)
}

fn is_punct(token: &TokenTree, letter: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == letter)
}

fn is_path_separator(tokens: &[TokenTree], at: usize) -> bool {
    tokens
        .get(at..at + 2)
        .is_some_and(|pair| pair.iter().all(|token| is_punct(token, ':')))
}

/// The items that are built always, and those under `#[cfg(test)]`.
fn split_tests(tokens: TokenStream) -> (TokenStream, TokenStream) {
    let (mut production, mut tests) = (TokenStream::new(), TokenStream::new());
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let is_test = is_punct(&token, '#')
            && matches!(tokens.peek(), Some(TokenTree::Group(group)) if group.stream().to_string().replace(' ', "") == "cfg(test)");
        if !is_test {
            production.extend([token]);
            continue;
        }
        // Up to the end of the item: its body, or its semicolon.
        for token in tokens.by_ref().skip(1) {
            let end = is_punct(&token, ';')
                || matches!(&token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace);
            tests.extend([token]);
            if end {
                break;
            }
        }
    }
    (production, tests)
}

/// The contents of the string literals, comments and documentation left out.
fn literals(tokens: TokenStream) -> Vec<String> {
    let mut flat = Vec::new();
    flatten(tokens, &mut flat);
    let is_doc = |index: usize| {
        index >= 2 && is_punct(&flat[index - 1], '=') && is_ident(&flat[index - 2], "doc")
    };
    flat.iter()
        .enumerate()
        .filter(|(index, _)| !is_doc(*index))
        .filter_map(|(_, token)| match token {
            TokenTree::Literal(literal) => unquote(&literal.to_string()),
            TokenTree::Group(_) | TokenTree::Ident(_) | TokenTree::Punct(_) => None,
        })
        .collect()
}

fn unquote(literal: &str) -> Option<String> {
    if let Some(raw) = literal.strip_prefix('r') {
        return Some(raw.trim_matches('#').trim_matches('"').to_owned());
    }
    let inner = literal.strip_prefix('"')?.strip_suffix('"')?;
    let mut text = String::new();
    let mut letters = inner.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some('n') => text.push('\n'),
                // A line continued: its indentation is not part of it.
                Some('\n') => while letters.next_if(|next| next.is_whitespace()).is_some() {},
                Some(other) => text.push(other),
                None => {}
            },
            other => text.push(other),
        }
    }
    Some(text)
}

/// Every check complains about what it is for, and about nothing else.
mod can_fail {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let mut files: BTreeMap<String, String> = files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
            .collect();
        for manifest in [
            "Cargo.toml",
            "shared/Cargo.toml",
            "shared/domain/Cargo.toml",
        ] {
            files.entry(manifest.to_owned()).or_default();
        }
        Tree {
            files,
            ..Tree::default()
        }
    }

    /// As many complaints as `expected`, each containing its text.
    #[track_caller]
    pub(super) fn complains(check: Check, files: &[(&str, &str)], expected: &[&str]) {
        let found = check(&tree(files));
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                found.contains(expected),
                "{found:?} does not say {expected:?}"
            );
        }
    }

    #[test]
    fn the_top_level_is_exactly_the_list() {
        let mut files: Vec<(&str, &str)> = TOP_LEVEL
            .iter()
            .filter(|name| name.contains('.') || **name == "LICENSE")
            .map(|name| (*name, ""))
            .chain([
                ("events/a", ""),
                ("functions/a/b", ""),
                ("migrations/a", ""),
                (".clippy.toml", ""),
            ])
            .collect();
        complains(top_level, &files, &[]);
        files.push(("scripts/deploy.sh", ""));
        files.retain(|(path, _)| *path != "LICENSE");
        complains(
            top_level,
            &files,
            &["LICENSE is missing", "scripts does not belong"],
        );
    }

    #[test]
    fn vague_file_names_are_refused() {
        let files = [
            ("shared/src/utils.rs", ""),
            ("functions/a/Types/x.rs", ""),
            ("shared/src/misc.sql", ""),
            ("shared/src/commons.rs", ""),
        ];
        complains(file_names, &files, &["Types/x.rs", "misc.sql", "utils.rs"]);
    }

    #[test]
    fn every_file_says_what_it_is() {
        let files = [
            ("a.rs", "//! What it is.\n"),
            ("b.rs", "use std::fs;\n"),
            ("c.rs", "//!\n"),
            ("d.md", ""),
        ];
        complains(first_lines, &files, &["b.rs", "c.rs"]);
    }

    #[test]
    fn a_long_main_is_refused() {
        let (short, long) = ("\n".repeat(40), "\n".repeat(41));
        let files = [
            ("functions/a/src/main.rs", short.as_str()),
            ("functions/b/src/main.rs", long.as_str()),
            ("functions/b/src/lib.rs", long.as_str()),
        ];
        complains(main_is_short, &files, &["functions/b/src/main.rs has 41"]);
    }

    #[test]
    fn the_domain_touches_nothing_outside() {
        let impure = "
            /// In a comment f64, async and tokio::spawn are words.
            async fn f(share: f64) { Timestamp::now(); }
            fn g() { let env = 1; let now = env; std::env::var(\"X\"); }
            #[cfg(test)] mod tests { fn t(x: f64) { tokio::spawn(x); } }";
        complains(
            domain_is_pure,
            &[
                (
                    "shared/domain/Cargo.toml",
                    "[dependencies]\njiff = \"1\"\ntokio-postgres = \"1\"\n",
                ),
                ("shared/domain/src/revenue/mod.rs", impure),
                ("shared/store/src/revenue.rs", impure),
                (
                    "shared/domain/src/money.rs",
                    "use jiff::Timestamp; fn f(now: Timestamp) { jiff::x(now) }",
                ),
            ],
            &["`tokio-postgres`", "`async`", "`f64`", "`now`", "`env`"],
        );
    }

    #[test]
    fn a_function_that_needs_another_is_refused() {
        let manifest =
            "[dependencies]\nwebhook.workspace = true\n[dev-dependencies]\nlocal = \"1\"\n";
        complains(
            functions_stand_alone,
            &[
                ("functions/usage/Cargo.toml", manifest),
                ("functions/local/Cargo.toml", manifest),
                ("functions/extra/Cargo.toml", ""),
                ("shared/Cargo.toml", "[dependencies]\nlocal = \"1\"\n"),
            ],
            &[
                "functions/extra is not",
                "usage/Cargo.toml depends on the function webhook",
                "shared/Cargo.toml depends",
            ],
        );
    }

    #[test]
    fn allow_and_ignore_are_refused() {
        complains(
            attributes,
            &[
                (
                    "a.rs",
                    "#![allow(dead_code)] fn f() { #[allow(unused)] let x = 1; }",
                ),
                ("b.rs", "mod t { #[test] #[ignore = \"slow\"] fn f() {} }"),
                ("c.rs", "#[cfg_attr(test, allow(dead_code))] fn f() {}"),
                (
                    "d.rs",
                    "/// #[allow(x)]\n#[expect(unused, reason = \"allow\")] fn allow() { ignore[0] }",
                ),
            ],
            &[
                "a.rs: #[allow]",
                "a.rs: #[allow]",
                "b.rs: #[ignore]",
                "c.rs: #[allow]",
            ],
        );
    }

    #[test]
    fn a_statement_without_its_name_is_refused() {
        complains(
            sql_names_its_function,
            &[
                (
                    "shared/store/src/invoices.rs",
                    "fn get() { q(\"-- invoices::get\n SELECT id FROM invoices\"); q(\"SELECT id FROM x\"); }
                     fn put() { q(\"-- invoices::upsert\n INSERT INTO x\"); q(\"-- refunds::get\n SELECT 1\"); }
                     #[cfg(test)] mod tests { fn t() { q(\"SELECT id FROM x\"); } }",
                ),
                ("shared/store/src/lib.rs", "fn ping() { q(r#\"-- store::ping\n SELECT 1\"#); }"),
            ],
            &["without its name: SELECT id", "no invoices::upsert", "no refunds::get"],
        );
    }

    #[test]
    fn a_star_for_columns_is_refused() {
        complains(
            sql_names_its_columns,
            &[
                (
                    "shared/store/src/a.rs",
                    "fn f() { q(\"-- a::f\n SELECT count(*) FROM a\"); q(\"-- a::g\n select *\n FROM a\"); }",
                ),
                (
                    "shared/store/src/b.rs",
                    "fn f() { q(\"-- b::f\n SELECT x * 2 FROM a\"); q(\"INSERT … RETURNING b.*\"); }",
                ),
            ],
            &["shared/store/src/a.rs", "shared/store/src/b.rs"],
        );
    }

    #[test]
    fn sql_outside_the_store_is_refused() {
        complains(
            sql_stays_in_the_store,
            &[
                (
                    "functions/webhook/src/lib.rs",
                    "fn f() { q(\"SELECT id FROM x\"); say(\"SELECT\"); say(\"Update it\"); }",
                ),
                (
                    "functions/local/src/lib.rs",
                    "fn f() { q(\"SELECT id FROM x\"); }",
                ),
                (
                    "functions/webhook/tests/a.rs",
                    "fn f() { q(\"SELECT id FROM x\"); }",
                ),
                (
                    "shared/src/ledger/mod.rs",
                    "fn f() { q(\"-- ledger::f\n SELECT 1\"); }",
                ),
            ],
            &["functions/webhook/src/lib.rs", "shared/src/ledger/mod.rs"],
        );
    }

    #[test]
    fn a_sample_nobody_reads_is_refused() {
        complains(
            samples_are_used,
            &[
                ("events/a.json", "{}"),
                ("events/b.json", "{}"),
                ("events/c.json", "{}"),
                ("events/d.json", "{}"),
                ("events/stripe_x_basil.json", "{}"),
                ("events/stripe_x_endive.json", "{}"),
                ("events/schedule_x.json", "{}"),
                ("events/apigw_x.json", "{}"),
                ("events/README.md", ""),
                (
                    "functions/reconciliation/tests/b.rs",
                    "fn f() { for sample in samples() { sample.name.starts_with(\"schedule_\") } }",
                ),
                (
                    "functions/usage/tests/b.rs",
                    "const NOT_WALKED: &str = \"apigw_\";",
                ),
                (
                    "functions/webhook/tests/a.rs",
                    "fn f() { include_str!(\"../../../events/a.json\"); read_all(\"stripe_*_basil.json\"); }",
                ),
                (
                    "functions/webhook/src/lib.rs",
                    "const X: &str = \"d.json\"; #[cfg(test)] mod tests { fn f() { sample(\"b\") } }",
                ),
                ("shared/tests/tidy.rs", "const X: &str = \"c.json\";"),
            ],
            &[
                "events/apigw_x.json",
                "events/c.json",
                "events/d.json",
                "events/stripe_x_endive.json",
            ],
        );
    }

    const TEMPLATE: &str = "
Resources:
  Table: {Type: AWS::DynamoDB::Table, Properties: {TableName: !Sub '${AWS::StackName}-x'}}
  WebhookFunction:
    Type: AWS::Serverless::Function
    Metadata: {BuildMethod: rust-cargolambda, BuildProperties: {Binary: webhook}}
    Properties:
      Role: !GetAtt Role.Arn
      Events:
        Stripe: {Type: HttpApi, Properties: {ApiId: !Ref Api, Method: POST, Path: /payments/webhook}}
        Alias: {Type: HttpApi, Properties: {Method: POST, Path: /webhooks/stripe}}
  MigrateFunction:
    Type: AWS::Serverless::Function
    Metadata: {BuildMethod: rust-cargolambda, BuildProperties: {Binary: migrate}}
";
    #[test]
    fn a_function_missing_from_the_template_is_refused() {
        let (webhook, migrate) = (("functions/webhook/a", ""), ("functions/migrate/a", ""));
        let template = ("template.yaml", TEMPLATE);
        complains(
            template_lists_the_functions,
            &[webhook, migrate, ("functions/local/a", ""), template],
            &[],
        );
        complains(
            template_lists_the_functions,
            &[webhook, migrate, ("functions/usage/a", ""), template],
            &["\"usage\""],
        );
        complains(
            template_lists_the_functions,
            &[webhook, template],
            &["deploys"],
        );
        let reversed = format!(
            "{}\n",
            TEMPLATE
                .replace("Binary: webhook", "Binary: x")
                .replace("Binary: migrate", "Binary: webhook")
                .replace("Binary: x", "Binary: migrate")
        );
        complains(
            template_lists_the_functions,
            &[webhook, migrate, ("template.yaml", &reversed)],
            &["in that order"],
        );
    }

    #[test]
    fn a_path_of_a_machine_is_refused() {
        let bad = format!("see {}x/notes", ["", "home", ""].join("/"));
        let fine = format!("https://example.com{}x", ["", "home", ""].join("/"));
        complains(
            no_machine_paths,
            &[
                ("a.md", &bad),
                ("b.md", &fine),
                ("c.sh", "/usr/lib/postgresql/15/bin"),
            ],
            &["a.md:1"],
        );
    }

    #[test]
    fn literals_are_read_as_the_compiler_reads_them() {
        let code = r##"/// "not me"
            fn f() { g("a\nb", r#"raw "x" y"#, 'c', 1, "con\
                tinued"); }"##;
        assert_eq!(
            literals(tokens("x", code)),
            ["a\nb", "raw \"x\" y", "continued"]
        );
    }
}
