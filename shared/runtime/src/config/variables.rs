//! Every environment variable the functions read, for people: `docs/configuration.md` is written from this list.
//!
//! Nothing reads a variable through it; `shared/tests/tidy/documents.rs` compares it with what the code reads and what
//! `template.yaml` sets.

/// An environment variable, as the documentation describes it.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// The name in the environment.
    pub name: &'static str,
    /// What applies when it is not set, in words.
    pub default: &'static str,
    /// The functions that read it, in the order of the bundle.
    pub read_by: &'static [&'static str],
    /// Whether the value is a secret: never logged, and never set in a deployed environment, which has the variable with
    /// the secret's ARN instead.
    pub is_secret: bool,
    /// What the value means, in Markdown.
    pub meaning: &'static str,
}

/// All deployed functions, in the order of the bundle.
const ALL: &[&str] = &[
    "webhook",
    "admin-revenue",
    "usage",
    "partner-invoicing",
    "invoice-pdf",
    "reconciliation",
    "migrate",
];

const fn variable(
    name: &'static str,
    default: &'static str,
    read_by: &'static [&'static str],
    meaning: &'static str,
) -> Variable {
    Variable {
        name,
        default,
        read_by,
        is_secret: false,
        meaning,
    }
}

const fn secret(
    name: &'static str,
    default: &'static str,
    read_by: &'static [&'static str],
    meaning: &'static str,
) -> Variable {
    Variable {
        is_secret: true,
        ..variable(name, default, read_by, meaning)
    }
}

/// The variables, by subject.
pub const VARIABLES: &[Variable] = &[
    secret(
        "DATABASE_URL",
        "this or the next is required",
        ALL,
        "`postgres://…`",
    ),
    variable(
        "DATABASE_SECRET_ARN",
        "",
        ALL,
        "a secret in RDS's form, or a URL",
    ),
    variable(
        "DATABASE_HOST",
        "the secret's own",
        ALL,
        "replaces the host of a secret in RDS's form: for a proxy, or when the secret names none (RDS managing the password)",
    ),
    variable(
        "DATABASE_PORT",
        "the secret's own, otherwise `5432`",
        ALL,
        "replaces the port of such a secret",
    ),
    variable(
        "DATABASE_NAME",
        "the secret's own",
        ALL,
        "replaces the database of such a secret",
    ),
    variable(
        "DATABASE_SSLMODE",
        "the URL's `sslmode`, otherwise `verify-full` except on this machine",
        ALL,
        "`disable`, `prefer`, `require`, `verify-full`; an encrypted connection is always verified",
    ),
    variable(
        "DATABASE_CA_FILE",
        "the system's roots",
        ALL,
        "PEM bundle; RDS needs its own, RDS Proxy does not",
    ),
    variable(
        "DATABASE_POOL_SIZE",
        "`1`",
        ALL,
        "connections at once; a sandbox serves one request at a time, but partner-invoicing issues several invoices at once",
    ),
    variable(
        "DATABASE_ROLE_SECRET_ARNS",
        "no roles are made",
        &["migrate"],
        "secrets of the functions' database roles, with commas; each is a JSON object with `username` and `password`",
    ),
    variable(
        "DATABASE_ROLE_PREFIX",
        "the database's name",
        &["migrate"],
        "what the roles' names begin with, at most 45 bytes; `_webhook` and so on follow. The template gives the stack's name",
    ),
    variable(
        "DATABASE_ROLES",
        "`made`",
        &["migrate"],
        "`given` when somebody else makes the roles: the deploy then logs their SQL and checks them",
    ),
    variable(
        "DATABASE_CONNECTIONS",
        "`60`",
        &["migrate"],
        "connections of all functions together, at least 20; each role has a share",
    ),
    variable(
        "DATABASE_HOST_CONNECTIONS",
        "`30`",
        &["migrate"],
        "connections that are left for everybody else",
    ),
    variable(
        "DATABASE_POOLED",
        "`false`",
        &["migrate"],
        "`true` behind a pooler (RDS Proxy, PgBouncer), which may keep idle connections",
    ),
    secret(
        "STRIPE_WEBHOOK_SECRETS",
        "this or the next is required",
        &["webhook"],
        "`whsec_…`, several with commas during a rotation",
    ),
    variable(
        "STRIPE_WEBHOOK_SECRET_ARN",
        "",
        &["webhook"],
        "a secret with the same",
    ),
    secret(
        "STRIPE_API_KEY",
        "runs report what they cannot do",
        &["partner-invoicing", "reconciliation"],
        "a restricted key; docs/stripe.md lists its rights",
    ),
    variable(
        "STRIPE_API_KEY_SECRET_ARN",
        "",
        &["partner-invoicing", "reconciliation"],
        "a secret with the same",
    ),
    variable(
        "STRIPE_API_BASE",
        "`https://api.stripe.com`",
        &["admin-revenue", "partner-invoicing", "reconciliation"],
        "address of Stripe's API; admin-revenue's health check asks whether it answers",
    ),
    variable(
        "STRIPE_LIVEMODE",
        "`true`",
        &[
            "webhook",
            "admin-revenue",
            "partner-invoicing",
            "reconciliation",
        ],
        "whose events and objects are taken: live ones (`true`), test ones (`false`) or both (`any`, as on this machine); an event of the other mode is kept as `foreign`, an object of it is refused",
    ),
    variable(
        "STRIPE_ACCOUNT",
        "events that name an account are foreign",
        &[
            "webhook",
            "admin-revenue",
            "partner-invoicing",
            "reconciliation",
        ],
        "`acct_…`: events that name this account are taken too",
    ),
    variable(
        "PARKED_EVENTS_TABLE",
        "required by webhook and reconciliation",
        &["webhook", "admin-revenue", "reconciliation"],
        "DynamoDB table",
    ),
    variable(
        "DOCUMENT_BUCKET",
        "required by webhook, partner-invoicing and reconciliation",
        &[
            "webhook",
            "admin-revenue",
            "usage",
            "partner-invoicing",
            "invoice-pdf",
            "reconciliation",
        ],
        "S3 bucket: large parked events under `parked/`, PDFs under `invoices/`, exports under `exports/`, reports under `reconciliation/`, the logo under `branding/`",
    ),
    variable(
        "EVENT_BUS_NAME",
        "required by webhook, usage, partner-invoicing and reconciliation",
        &[
            "webhook",
            "admin-revenue",
            "usage",
            "partner-invoicing",
            "reconciliation",
        ],
        "where domain events are published",
    ),
    secret(
        "ADMIN_JWT_SECRET",
        "one of the three is required",
        &["admin-revenue", "usage", "invoice-pdf"],
        "key of the host application's HS256 tokens",
    ),
    variable(
        "ADMIN_JWT_SECRET_ARN",
        "",
        &["admin-revenue", "usage", "invoice-pdf"],
        "a secret with the same",
    ),
    variable(
        "ADMIN_JWKS_URL",
        "",
        &["admin-revenue", "usage", "invoice-pdf"],
        "a key set, for RS256 and ES256",
    ),
    variable(
        "ADMIN_JWT_AUDIENCE",
        "not checked",
        &["admin-revenue", "usage", "invoice-pdf"],
        "expected `aud`",
    ),
    variable(
        "ADMIN_JWT_ISSUER",
        "not checked",
        &["admin-revenue", "usage", "invoice-pdf"],
        "expected `iss`",
    ),
    secret(
        "SERVICE_TOKENS",
        "this or the next is required",
        &["usage"],
        "bearer tokens of the application's backend, with commas",
    ),
    variable(
        "SERVICE_TOKENS_SECRET_ARN",
        "",
        &["usage"],
        "a secret with the same",
    ),
    variable(
        "REPORTING_CURRENCY",
        "`USD`",
        &["admin-revenue"],
        "currency of the dashboard's figures",
    ),
    variable(
        "INVOICE_ISSUER",
        "invoices are not printed",
        &["partner-invoicing", "invoice-pdf"],
        "who sends the invoices, as JSON (below)",
    ),
    variable(
        "FEE_ESTIMATE_BPS",
        "`290`",
        &["webhook", "admin-revenue", "reconciliation"],
        "fee assumed until Stripe names the actual one, in basis points",
    ),
    variable(
        "FEE_ESTIMATE_FIXED_CENTS",
        "`30`",
        &["webhook", "admin-revenue", "reconciliation"],
        "fixed part of that fee, in minor units of two-decimal currencies",
    ),
    variable(
        "PARTNER_INVOICE_REVIEW_CAP_CENTS",
        "`0`: none",
        &["partner-invoicing", "admin-revenue"],
        "an invoice with a higher total, in minor units of any currency, waits for a person's review",
    ),
    variable(
        "PARTNER_INVOICE_CATCH_UP",
        "`3`",
        &["partner-invoicing", "admin-revenue"],
        "a contract that has missed more periods than these waits for a person's review",
    ),
    variable(
        "RUST_LOG",
        "`info`",
        ALL,
        "lowest level that is logged, by target",
    ),
    variable("AWS_REGION", "Lambda sets it", ALL, ""),
    secret(
        "AWS_ACCESS_KEY_ID",
        "Lambda sets it",
        ALL,
        "the role's credentials",
    ),
    secret("AWS_SECRET_ACCESS_KEY", "Lambda sets it", ALL, "the same"),
    secret("AWS_SESSION_TOKEN", "Lambda sets it", ALL, "the same"),
    variable(
        "AWS_ENDPOINT_URL",
        "AWS",
        ALL,
        "address of the stand-in, locally",
    ),
];
