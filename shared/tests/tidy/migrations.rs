//! The rules of `migrations/` (docs/migrations.md): numbers without gaps, and nothing that the release before, which runs
//! meanwhile, or a large table could not bear.

use std::collections::BTreeSet;

use super::Tree;

const LIST: &str = "shared/store/src/migrations.rs";
/// The rules for what a file may do came after this version.
const RULES_AFTER: usize = 31;

/// A versioned file.
struct File<'a> {
    version: usize,
    /// `V0033__invoices_status_idx.concurrent.sql`
    name: &'a str,
    /// `invoices_status_idx`
    what: &'a str,
    /// `concurrent`, `backfill` or nothing.
    kind: &'a str,
    sql: &'a str,
}

fn file<'a>(name: &'a str, sql: &'a str) -> Option<File<'a>> {
    let (version, rest) = name.strip_prefix('V')?.split_once("__")?;
    let stem = rest.strip_suffix(".sql")?;
    let (what, kind) = stem.split_once('.').unwrap_or((stem, ""));
    let is_named = !what.is_empty()
        && version.len() == 4
        && matches!(kind, "" | "concurrent" | "backfill")
        && what
            .chars()
            .all(|letter| matches!(letter, 'a'..='z' | '0'..='9' | '_'));
    is_named.then_some(File {
        version: version.parse().ok()?,
        name,
        what,
        kind,
        sql,
    })
}

/// Everything in `migrations/`, by its name there.
fn all(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    let files = tree.files.iter();
    files.filter_map(|(path, sql)| Some((path.strip_prefix("migrations/")?, sql.as_str())))
}

/// Versioned files numbered from one, functions and grants, and each in the lists of those that are applied.
pub(super) fn migrations_have_no_gaps(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut version = 0;
    for (name, sql) in all(tree) {
        if !tree.get(LIST).contains(&format!("\"{name}\"")) {
            complaints.push(format!("migrations/{name} is not in {LIST}"));
        }
        if name == "roles.sql" || name.starts_with("functions/") && name.ends_with(".sql") {
            continue;
        }
        version += 1;
        if file(name, sql).is_none_or(|file| file.version != version) {
            complaints.push(format!(
                "migrations/{name} should be V{version:04}__<what>.sql, .concurrent.sql or .backfill.sql"
            ));
        }
    }
    complaints
}

/// A statement's words in capitals, without its comments and what it quotes, and the text of its comments.
#[derive(Default)]
struct Statement {
    words: Vec<String>,
    comments: String,
}

impl Statement {
    fn has(&self, word: &str) -> bool {
        self.words.iter().any(|found| found == word)
    }

    /// What stands behind these words, wherever they stand.
    fn after(&self, words: &[&str]) -> Option<&str> {
        let at = self
            .words
            .windows(words.len())
            .position(|found| found == words)?;
        self.words.get(at + words.len()).map(String::as_str)
    }

    /// The table that `ALTER TABLE` and `CREATE TABLE` name, and that an index is of.
    fn table(&self) -> &str {
        let words = self.words.iter().map(String::as_str);
        let words: Vec<&str> = words
            .filter(|word| !matches!(*word, "IF" | "NOT" | "EXISTS" | "ONLY"))
            .collect();
        let before = if self.builds_index() && words.first() == Some(&"CREATE") {
            "ON"
        } else {
            "TABLE"
        };
        let at = words.iter().position(|word| *word == before);
        at.and_then(|at| words.get(at + 1))
            .copied()
            .unwrap_or_default()
    }

    fn builds_index(&self) -> bool {
        match self.words.first().map(String::as_str) {
            Some("CREATE") => self.words.iter().take(3).any(|word| word == "INDEX"),
            Some("ALTER") => {
                ["UNIQUE", "PRIMARY", "EXCLUDE"]
                    .iter()
                    .any(|word| self.has(word))
                    && !self.has("USING")
            }
            _ => false,
        }
    }

    fn rewrites_table(&self) -> bool {
        let rewriting = [
            "TYPE",
            "STORED",
            "SERIAL",
            "BIGSERIAL",
            "LOGGED",
            "UNLOGGED",
        ];
        self.words.first().is_some_and(|first| first == "ALTER")
            && self.has("TABLE")
            && rewriting.iter().any(|word| self.has(word))
    }

    /// Whether somebody says why it may not be done in slices.
    fn is_at_once(&self) -> bool {
        let reason = self.comments.split_once("-- at once: ");
        reason.is_some_and(|(_, reason)| !reason.trim().is_empty())
    }

    /// Whether rows are changed by it, rather than by what it defines.
    fn changes_rows(&self) -> bool {
        self.words.iter().enumerate().any(|(at, word)| {
            let before = at.checked_sub(1).map_or("", |at| self.words[at].as_str());
            // `ON DELETE CASCADE`, `BEFORE INSERT OR UPDATE`, `FOR NO KEY UPDATE`, `DO UPDATE SET`, `GRANT SELECT, UPDATE`.
            let is_part = matches!(
                before,
                "ON" | "OR"
                    | "BEFORE"
                    | "AFTER"
                    | "OF"
                    | "FOR"
                    | "KEY"
                    | "DO"
                    | "GRANT"
                    | "REVOKE"
                    | ","
            );
            matches!(word.as_str(), "UPDATE" | "DELETE" | "TRUNCATE") && !is_part
        })
    }
}

/// The statements of a file. What a function does when it is called is not looked at, what `DO` does is.
fn statements(sql: &str) -> Vec<Statement> {
    let mut statements = vec![Statement::default()];
    let mut rest = sql;
    while let Some(letter) = rest.chars().next() {
        let current = statements.last_mut().unwrap();
        let is_do = current.words.first().is_some_and(|first| first == "DO");
        let length = if rest.starts_with("--") {
            let line = rest.lines().next().unwrap_or_default();
            current.comments.push_str(line);
            current.comments.push('\n');
            line.len()
        } else if letter == '\'' {
            current.words.push("''".to_owned());
            rest[1..].find('\'').map_or(rest.len(), |end| end + 2)
        } else if let Some(tag) = dollar_quote(rest) {
            let end = rest[tag.len()..].find(tag);
            let end = end.map_or(rest.len(), |end| end + 2 * tag.len());
            if is_do {
                let body = statements_of_body(&rest[tag.len()..end.saturating_sub(tag.len())]);
                current.words.extend(body.words);
                current.comments.push_str(&body.comments);
            }
            end
        } else if letter == ';' {
            statements.push(Statement::default());
            1
        } else if letter.is_alphanumeric() || letter == '_' {
            let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
            let end = rest.find(|letter| !is_word(letter)).unwrap_or(rest.len());
            current.words.push(rest[..end].to_uppercase());
            end
        } else {
            if !letter.is_whitespace() {
                current.words.push(letter.to_string());
            }
            letter.len_utf8()
        };
        rest = &rest[length..];
    }
    statements.retain(|statement| !statement.words.is_empty());
    statements
}

fn statements_of_body(body: &str) -> Statement {
    let mut all = Statement::default();
    for statement in statements(body) {
        all.words.extend(statement.words);
        all.words.push(";".to_owned());
        all.comments.push_str(&statement.comments);
    }
    all
}

/// `$$` or `$body$`; `$1` is a parameter.
fn dollar_quote(text: &str) -> Option<&str> {
    let (tag, _) = text.strip_prefix('$')?.split_once('$')?;
    let is_tag = tag
        .chars()
        .all(|letter| letter.is_ascii_lowercase() || letter == '_');
    is_tag.then(|| &text[..tag.len() + 2])
}

pub(super) fn migrations_run_under_live_functions(tree: &Tree) -> Vec<String> {
    let files: Vec<File<'_>> = all(tree)
        .filter_map(|(name, sql)| file(name, sql))
        .collect();
    let background: BTreeSet<usize> = files
        .iter()
        .filter(|file| !file.kind.is_empty())
        .map(|file| file.version)
        .collect();
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.version > RULES_AFTER) {
        let mut complain =
            |text: String| complaints.push(format!("migrations/{}: {text}", file.name));
        let statements = statements(file.sql);
        for statement in &statements {
            let is_contract = statement.has("DROP") || statement.has("RENAME");
            let since = version_after(&statement.comments, "contract: unused since ");
            if is_contract && since.is_none_or(|since| since >= file.version) {
                complain(
                    "DROP and RENAME need `-- contract: unused since V00nn` before the statement: the release before \
                     still runs"
                        .to_owned(),
                );
            }
            if statement.changes_rows() && file.kind != "backfill" && !statement.is_at_once() {
                complain(
                    "rows are changed in slices, by a .backfill.sql; what has to be done in one transaction says why in \
                     `-- at once: …` before the statement"
                        .to_owned(),
                );
            }
            if statement.has("CONCURRENTLY") && file.kind != "concurrent" {
                complain("CONCURRENTLY has a file of its own, .concurrent.sql".to_owned());
            }
        }
        let made: BTreeSet<&str> = statements
            .iter()
            .filter(|statement| statement.after(&["CREATE"]) == Some("TABLE"))
            .map(Statement::table)
            .collect();
        let old = || statements.iter().filter(|one| !made.contains(one.table()));
        if old().any(Statement::rewrites_table) && old().any(Statement::builds_index) {
            complain("a table is rewritten and an index built in one transaction".to_owned());
        }
        match (file.kind, statements.as_slice()) {
            ("concurrent", [one]) => {
                let index = one.after(&["INDEX", "CONCURRENTLY", "IF", "NOT", "EXISTS"]);
                if index.is_none_or(|index| index.to_lowercase() != file.what) {
                    complain(format!(
                        "has to be CREATE INDEX CONCURRENTLY IF NOT EXISTS {} …, as the file is named",
                        file.what
                    ));
                }
            }
            ("backfill", [one]) => {
                if one.after(&["$"]) != Some("1") {
                    complain("has no $1 for the number of rows".to_owned());
                }
                if one.has("SKIP") {
                    complain(
                        "with SKIP LOCKED a slice of locked rows looks like the end".to_owned(),
                    );
                }
            }
            ("concurrent" | "backfill", _) => complain("has to be one statement".to_owned()),
            _ => {}
        }
        for line in file.sql.lines().filter(|line| line.contains("requires:")) {
            let required = line
                .starts_with("-- requires: V")
                .then(|| version_after(line, "requires: "));
            let is_known = required
                .flatten()
                .is_some_and(|version| version < file.version && background.contains(&version));
            if !is_known {
                complain(format!(
                    "`{line}` has to be `-- requires: V00nn` with an earlier .backfill.sql or .concurrent.sql"
                ));
            }
        }
    }
    complaints
}

/// 33 of `requires: V0033` after `requires: `.
fn version_after(text: &str, before: &str) -> Option<usize> {
    let (_, version) = text.split_once(before)?;
    let version = version.strip_prefix('V')?;
    let end = version
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(version.len());
    version[..end].parse().ok()
}

/// A function of a new text has a new name: the release before goes on calling its own.
pub(super) fn functions_have_a_hash(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, sql) in all(tree).filter(|(name, _)| name.starts_with("functions/")) {
        for statement in statements(sql) {
            let function = statement.after(&["CREATE", "OR", "REPLACE", "FUNCTION"]);
            let is_named = function
                .and_then(|name| name.strip_suffix("_HASH"))
                .map(|name| format!("FUNCTION {}_HASH", name.to_lowercase()))
                .is_some_and(|name| name.contains(" billing_") && sql.contains(&name));
            if statement
                .words
                .first()
                .is_some_and(|first| first == "CREATE")
                && !is_named
            {
                complaints.push(format!(
                    "migrations/{name}: has to be CREATE OR REPLACE FUNCTION billing_…_HASH"
                ));
            }
        }
    }
    complaints
}

/// Every check complains about what it is for, and about nothing else.
mod can_fail {
    use super::super::can_fail::complains;
    use super::*;

    #[test]
    fn a_gap_in_the_migrations_is_refused() {
        let first = ("migrations/V0001__host_tables.sql", "");
        let list = (
            LIST,
            r#""V0001__host_tables.sql", "V0002__ledger.sql", "V0003__ledger.sql", "V0002_Ledger.sql",
                "V0002__x.concurrent.sql", "V0002__x.slow.sql", "functions/a.sql", "roles.sql""#,
        );
        for (second, expected) in [
            ("migrations/V0002__ledger.sql", None),
            ("migrations/V0002__x.concurrent.sql", None),
            ("migrations/functions/a.sql", None),
            ("migrations/roles.sql", None),
            (
                "migrations/V0003__ledger.sql",
                Some("V0003__ledger.sql should be V0002"),
            ),
            ("migrations/V0002_Ledger.sql", Some("V0002_Ledger.sql")),
            ("migrations/V0002__x.slow.sql", Some("V0002__x.slow.sql")),
            (
                "migrations/V0002__forgotten.sql",
                Some("V0002__forgotten.sql is not in"),
            ),
            (
                "migrations/functions/b.sql",
                Some("functions/b.sql is not in"),
            ),
        ] {
            let expected: Vec<&str> = expected.into_iter().collect();
            complains(
                migrations_have_no_gaps,
                &[list, first, (second, "")],
                &expected,
            );
        }
    }

    #[track_caller]
    fn judged(name: &str, sql: &str, expected: &[&str]) {
        let path = format!("migrations/{name}");
        let backfill = (
            "migrations/V0032__n.backfill.sql",
            "UPDATE t SET n = 1 WHERE id < $1",
        );
        complains(
            migrations_run_under_live_functions,
            &[backfill, (&path, sql)],
            expected,
        );
    }

    #[test]
    fn what_the_release_before_needs_is_kept() {
        judged(
            "V0040__x.sql",
            "-- DROP it some day.\nALTER TABLE t ADD COLUMN n INT; -- RENAME it",
            &[],
        );
        judged(
            "V0040__x.sql",
            "ALTER TABLE t DROP COLUMN n; ALTER TABLE t RENAME n TO m",
            &["contract", "contract"],
        );
        judged(
            "V0040__x.sql",
            "DO $$ BEGIN DROP INDEX i; END $$",
            &["contract"],
        );
        judged(
            "V0040__x.sql",
            "-- contract: unused since V0037\nALTER TABLE t DROP COLUMN n",
            &[],
        );
        judged(
            "V0040__x.sql",
            "-- contract: unused since V0037\nDROP TABLE t; DROP TABLE u",
            &["contract"],
        );
        judged(
            "V0040__x.sql",
            "-- contract: unused since V0040\nDROP TABLE t",
            &["contract"],
        );
        // These came before the rule.
        judged("V0031__x.sql", "DROP TABLE t; UPDATE t SET n = 1", &[]);
    }

    #[test]
    fn rows_are_changed_in_slices() {
        for sql in [
            "UPDATE t SET n = 1",
            "DELETE FROM t",
            "TRUNCATE t",
            "WITH old AS (DELETE FROM t RETURNING id) INSERT INTO u SELECT id FROM old",
            "DO $body$ BEGIN IF true THEN UPDATE t SET n = 1; END IF; END $body$",
        ] {
            judged("V0040__x.sql", sql, &["slices"]);
        }
        for sql in [
            "ALTER TABLE t ADD FOREIGN KEY (n) REFERENCES u (id) ON DELETE CASCADE ON UPDATE SET NULL",
            "CREATE TRIGGER x BEFORE INSERT OR UPDATE OF n OR DELETE ON t EXECUTE FUNCTION f()",
            "CREATE FUNCTION f() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN DELETE FROM t; DROP TABLE t; END $$",
            "GRANT SELECT, UPDATE ON t TO u; INSERT INTO t VALUES ('UPDATE') ON CONFLICT (id) DO UPDATE SET n = 1",
        ] {
            judged("V0040__x.sql", sql, &[]);
        }
        let reason = "-- at once: two halves of a sum";
        judged(
            "V0040__x.sql",
            &format!("{reason}\nUPDATE t SET n = 1"),
            &[],
        );
        judged(
            "V0040__x.sql",
            &format!(
                "{reason}\nUPDATE t SET n = 1; UPDATE u SET n = 1; -- at once: \nDELETE FROM u"
            ),
            &["slices", "slices"],
        );
        judged(
            "V0040__x.backfill.sql",
            "DELETE FROM t WHERE id IN (SELECT id FROM t LIMIT $1)",
            &[],
        );
        judged("V0040__x.backfill.sql", "DELETE FROM t", &["$1"]);
        judged(
            "V0040__x.backfill.sql",
            "UPDATE t SET n = $1; SELECT 1",
            &["one statement"],
        );
        judged(
            "V0040__x.backfill.sql",
            "UPDATE t SET n = 1 WHERE id IN (SELECT id FROM t LIMIT $1 FOR UPDATE SKIP LOCKED)",
            &["SKIP LOCKED"],
        );
    }

    #[test]
    fn an_index_is_built_alone() {
        let rewrite = "ALTER TABLE t ALTER COLUMN n TYPE BIGINT;";
        for build in [
            "CREATE UNIQUE INDEX i ON t (n)",
            "CREATE INDEX i ON ONLY u (n)",
            "ALTER TABLE t ADD CONSTRAINT c UNIQUE (n)",
            "ALTER TABLE t ADD PRIMARY KEY (n)",
        ] {
            judged(
                "V0040__x.sql",
                &format!("{rewrite} {build}"),
                &["rewritten and an index"],
            );
        }
        judged("V0040__x.sql", rewrite, &[]);
        judged("V0040__x.sql", "CREATE INDEX i ON t (n)", &[]);
        judged(
            "V0040__x.sql",
            &format!(
                "{rewrite} CREATE TABLE IF NOT EXISTS n (id INT); CREATE INDEX i ON n (id);
                ALTER TABLE t ADD CONSTRAINT c UNIQUE USING INDEX j"
            ),
            &[],
        );
        judged(
            "V0040__x.sql",
            "CREATE INDEX CONCURRENTLY i ON t (n)",
            &["a file of its own"],
        );
        let build = "-- Why.\nCREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON t (n)";
        judged("V0040__i.concurrent.sql", build, &[]);
        judged("V0040__j.concurrent.sql", build, &["IF NOT EXISTS j"]);
        judged(
            "V0040__i.concurrent.sql",
            "CREATE INDEX CONCURRENTLY i ON t (n)",
            &["IF NOT EXISTS i"],
        );
        judged(
            "V0040__i.concurrent.sql",
            &format!("{build}; {build}"),
            &["one statement"],
        );
    }

    #[test]
    fn what_is_required_is_there() {
        judged("V0040__x.sql", "-- requires: V0032\nSELECT 1", &[]);
        for line in [
            "-- requires: V0031",
            "-- requires: V0041",
            "-- requires: 32",
            "--requires: V0032",
        ] {
            judged(
                "V0040__x.sql",
                &format!("{line}\nSELECT 1"),
                &["has to be `-- requires"],
            );
        }
    }

    #[test]
    fn a_function_without_a_hash_is_refused() {
        complains(
            functions_have_a_hash,
            &[
                (
                    "migrations/functions/a.sql",
                    "CREATE OR REPLACE FUNCTION billing_a_HASH() RETURNS INT LANGUAGE sql AS $$ CREATE TABLE x () $$;
                     CREATE OR REPLACE FUNCTION billing_b() RETURNS INT LANGUAGE sql AS $$ $$;
                     CREATE FUNCTION billing_c_HASH() RETURNS INT LANGUAGE sql AS $$ $$;",
                ),
                ("migrations/V0040__x.sql", "CREATE FUNCTION f() RETURNS INT LANGUAGE sql AS $$ $$"),
            ],
            &["functions/a.sql", "functions/a.sql"],
        );
    }
}
