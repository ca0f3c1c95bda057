//! `docs/data-model.md`: the migrated schema, with the comments that stand beside the columns in the migrations.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use testing::{TestDatabase, workspace_root};

use crate::compare;

const HEAD: &str = r"# Data model

Every table of the migrated database, with each column's type and the comment it has in `migrations/`. Amounts are integers in minor units of the row's currency, currencies upper-case ISO 4217, instants `timestamptz`, ranges `[start, end)`. Tables that show objects of Stripe's also keep the version of the snapshot they show (`source_created_at`, `source_rank`, `source_event_id`); [ledger.md](ledger.md) says how it orders them. [migrations.md](migrations.md) says how the schema changes.

Solid lines are foreign keys. Dotted lines are links by an id that the database does not enforce: a parent may arrive after its child, and tables of the host application are not altered.

```mermaid
erDiagram
";

/// Ids that name a row of a table without a foreign key.
const LINKS: [(&str, &str); 13] = [
    ("contract_id", "api_partner_contracts"),
    ("invoice_id", "invoices"),
    ("payment_key", "payment_history"),
    ("run_id", "reconciliation_runs"),
    ("stripe_charge_id", "payment_attempts"),
    ("stripe_coupon_id", "coupons"),
    ("stripe_customer_id", "customers"),
    ("stripe_invoice_id", "invoices"),
    ("stripe_payment_intent_id", "payment_intents"),
    ("stripe_price_id", "prices"),
    ("stripe_subscription_id", "subscriptions"),
    ("plan_name", "plan_limits"),
    ("user_id", "users"),
];

#[derive(Debug)]
struct Column {
    name: String,
    kind: String,
    is_nullable: bool,
    default: Option<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_model_is_the_migrated_schema() {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let rows = client
        .query(
            "SELECT c.relname::text AS table_name, a.attname::text AS name,
                    format_type(a.atttypid, a.atttypmod) AS kind, NOT a.attnotnull AS is_nullable,
                    pg_get_expr(d.adbin, d.adrelid) AS default_value
             FROM pg_class c
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
             WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
             ORDER BY c.relname, a.attnum",
            &[],
        )
        .await
        .unwrap();
    let mut tables: BTreeMap<String, Vec<Column>> = BTreeMap::new();
    for row in &rows {
        tables
            .entry(row.get("table_name"))
            .or_default()
            .push(Column {
                name: row.get("name"),
                kind: row.get("kind"),
                is_nullable: row.get("is_nullable"),
                default: row.get("default_value"),
            });
    }
    let keys: BTreeMap<String, String> = client
        .query(
            "SELECT conrelid::regclass::text AS table_name, pg_get_constraintdef(oid) AS definition
             FROM pg_constraint WHERE contype = 'p' AND connamespace = 'public'::regnamespace",
            &[],
        )
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get("table_name"), row.get("definition")))
        .collect();
    let foreign_keys = client
        .query(
            "SELECT k.conrelid::regclass::text AS table_name, k.confrelid::regclass::text AS parent,
                    a.attname::text AS name
             FROM pg_constraint k
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
             WHERE k.contype = 'f' AND k.connamespace = 'public'::regnamespace
             ORDER BY 1, 2, 3",
            &[],
        )
        .await
        .unwrap();

    let mut text = String::from(HEAD);
    let mut enforced = Vec::new();
    for row in &foreign_keys {
        let (table, parent, name): (String, String, String) =
            (row.get("table_name"), row.get("parent"), row.get("name"));
        writeln!(text, "    {parent} ||--o{{ {table} : {name}").unwrap();
        enforced.push((table, name));
    }
    for (table, columns) in &tables {
        for column in columns {
            let link = LINKS.iter().find(|(name, _)| *name == column.name);
            let is_enforced = enforced
                .iter()
                .any(|(with, name)| with == table && *name == column.name);
            if let Some((name, parent)) = link.filter(|(_, parent)| parent != table)
                && !is_enforced
                // The table whose key it is keeps it too.
                && !keys.get(table).is_some_and(|key| key.contains(&format!("({name})")))
            {
                writeln!(text, "    {parent} ||..o{{ {table} : {name}").unwrap();
            }
        }
    }
    text.push_str("```\n");

    let comments = comments();
    let mut missing = Vec::new();
    for (table, columns) in &tables {
        writeln!(text, "\n## {table}\n").unwrap();
        if let Some(key) = keys.get(table) {
            writeln!(text, "{key}\n").unwrap();
        }
        text.push_str("| column | type | |\n|---|---|---|\n");
        for column in columns {
            let comment = comments.get(&(table.clone(), column.name.clone()));
            if comment.is_none() {
                missing.push(format!("{table}.{}", column.name));
            }
            let comment = comment.map_or("", String::as_str).replace('|', "\\|");
            let mut kind = column
                .kind
                .replace("timestamp with time zone", "timestamptz");
            if !column.is_nullable {
                kind.push_str(" not null");
            }
            let default = column
                .default
                .as_deref()
                .filter(|text| !text.starts_with("nextval"));
            if let Some(default) = default {
                write!(kind, " default `{default}`").unwrap();
            }
            writeln!(text, "| `{}` | {kind} | {comment} |", column.name).unwrap();
        }
    }
    assert!(
        missing.is_empty(),
        "columns without a trailing comment in their migration: {}",
        missing.join(", ")
    );
    compare("docs/data-model.md", &text.replace("|  |", "| |"));
}

/// The comments behind the columns of `CREATE TABLE` and `ADD COLUMN`, by table and column; a later migration's wins.
fn comments() -> BTreeMap<(String, String), String> {
    let folder = workspace_root().join("migrations");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    let mut found = BTreeMap::new();
    for file in files {
        comments_of(&std::fs::read_to_string(file).unwrap(), &mut found);
    }
    // The runner's own table (`store::migrations`).
    for (column, comment) in [
        ("version", "1, 2, 3 … without gaps"),
        ("file", "name in migrations/"),
        ("sha256", "hex digest of the file: an edited one is refused"),
        ("applied_at", "when"),
    ] {
        found.insert(
            ("billing_migrations".to_owned(), column.to_owned()),
            comment.to_owned(),
        );
    }
    found
}

fn comments_of(sql: &str, found: &mut BTreeMap<(String, String), String>) {
    let mut table: Option<String> = None;
    let mut column: Option<String> = None;
    // Whether a line begins something, rather than goes on with what the line before began.
    let mut is_new = true;
    for line in sql.lines() {
        let (code, comment) = match line.split_once("-- ") {
            Some((code, comment)) => (code.trim(), Some(comment.trim())),
            None => (line.trim(), None),
        };
        let mut words = code
            .split_whitespace()
            .filter(|word| !matches!(*word, "IF" | "NOT" | "EXISTS" | "ONLY" | "UNLOGGED"));
        match (words.next(), words.next(), words.next()) {
            (Some("CREATE" | "ALTER"), Some("TABLE"), Some(name)) => {
                table = Some(name.trim_matches(['(', ';']).to_owned());
                column = None;
                // `ALTER TABLE x ADD COLUMN y` on one line.
                if let Some(at) = code.find("ADD COLUMN ") {
                    column = code[at..].split_whitespace().nth(2).map(str::to_owned);
                }
            }
            (Some("ADD"), Some("COLUMN"), Some(name)) => column = Some(name.to_owned()),
            (Some("ADD" | "ALTER" | "CREATE" | "DROP"), ..) => column = None,
            (Some("CONSTRAINT"), ..) if is_new => column = None,
            (Some(first), Some(_), _) if is_new && table.is_some() && is_name(first) => {
                column = Some(first.to_owned());
            }
            _ => {}
        }
        if let (Some(table), Some(column), Some(comment)) = (&table, &column, comment) {
            found.insert((table.clone(), column.clone()), comment.to_owned());
        }
        if code.ends_with(';') {
            (table, column) = (None, None);
        }
        if !code.is_empty() {
            is_new = code.ends_with([',', '(', ';']);
        }
    }
}

fn is_name(word: &str) -> bool {
    word.starts_with(|letter: char| letter.is_ascii_lowercase())
        && word
            .chars()
            .all(|letter| matches!(letter, 'a'..='z' | '0'..='9' | '_'))
}
