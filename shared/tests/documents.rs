//! Files that are written from the code: `UPDATE_DOCS=1 cargo test -p shared --test documents` writes the documents,
//! `UPDATE_SQL=1` the functions of the database.

#![expect(clippy::unwrap_used, reason = "a panic is the report")]

#[path = "documents/data_model.rs"]
mod data_model;

use std::fmt::Write as _;

use runtime::config::variables::VARIABLES;
use testing::workspace_root;

/// Says in a generated file how to write it.
const GENERATED: &str =
    "<!-- Written by `UPDATE_DOCS=1 cargo test -p shared --test documents`; do not edit. -->\n";

#[expect(
    clippy::disallowed_methods,
    reason = "whether to write the files is said by who runs the test"
)]
fn is_to_be_written(variable: &str) -> bool {
    std::env::var(variable).is_ok_and(|value| value == "1")
}

/// Writes the document when it was asked for, and compares.
fn compare(path: &str, text: &str) {
    compare_file(path, &format!("{GENERATED}{text}"), "UPDATE_DOCS");
}

fn compare_file(path: &str, text: &str, variable: &str) {
    let file = workspace_root().join(path);
    if is_to_be_written(variable) {
        std::fs::write(&file, text).unwrap();
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    let same = committed.lines().zip(text.lines());
    let line = same.take_while(|(old, new)| old == new).count() + 1;
    assert!(
        committed == text,
        "{path} is stale from line {line} on; write it with {variable}=1 cargo test -p shared --test documents"
    );
}

#[test]
fn the_functions_of_the_ledger_are_those_of_the_mirrored_tables() {
    compare_file(
        "migrations/functions/ledger.sql",
        &store::ledger::sql(),
        "UPDATE_SQL",
    );
}

#[test]
fn the_configuration_is_what_the_list_of_variables_says() {
    let mut text = String::from(CONFIGURATION);
    for variable in VARIABLES {
        let read_by = match variable.read_by.len() {
            7 => "all".to_owned(),
            _ => variable.read_by.join(", "),
        };
        let secret = if variable.is_secret { "yes" } else { "" };
        writeln!(
            text,
            "| `{}` | {} | {read_by} | {secret} | {} |",
            variable.name, variable.default, variable.meaning
        )
        .unwrap();
    }
    text.push_str(CONFIGURATION_BELOW);
    compare("docs/configuration.md", &text.replace("|  |", "| |"));
}

const CONFIGURATION: &str = r"# Configuration

Environment variables are the only configuration, and `config` is the only module that reads them. An empty variable counts as not set. A function whose required configuration is missing refuses to start and names the variable in one JSON line of its log; if only one route needs it, that route answers 503 and its log line names the variable.

**Secrets** are never logged. A deployed function has the variable with the ARN of a Secrets Manager secret instead; the secret is read at run time, kept for five minutes, and read again once when a check fails. No other `AWS_*` variable is read, and no profile, configuration file or metadata service.

| variable | when not set | read by | secret | |
|---|---|---|---|---|
";

const CONFIGURATION_BELOW: &str = r##"
`INVOICE_ISSUER` is one JSON object. Only `name` is required, and an unknown member is refused:

```json
{"name": "DeedPro Inc.", "address": ["500 Grand Avenue", "Los Angeles, CA 90071"], "tax_id": "US 12-3456789",
 "email": "billing@deedpro.example", "phone": "+1 …", "website": "deedpro.example",
 "logo_key": "branding/logo.png", "brand_color": "#1f4e8c", "page_size": "letter", "notes": "Thank you.",
 "payment_instructions": {"wire": ["Bank, routing, account"], "check": ["…"], "ach": ["…"], "stripe": ["…"]}}
```

`logo_key` is a PNG or JPEG of at most 256 KiB in `DOCUMENT_BUCKET`, read with the first invoice. `page_size` is `letter` or `a4`. Of `payment_instructions` an invoice prints the lines for its contract's `payment_method`.

The variables of the local bundle and the tests are in [local.md](local.md).
"##;
