//! The rules of `template.yaml`: what a function may do is what its code does, nothing is without its alarm, no secret
//! lies in an environment. They read the template and the code, so that what is new has to be in both.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use saphyr::{LoadableYamlNode, Yaml};
use serde_json::{Map, Value, json};

use super::{Tree, documents, flatten, is_ident, is_punct, literals, split_tests, tokens};

/// The calls of the SDK and what they need to be allowed.
const ACTIONS: [(&str, &str); 18] = [
    ("put_object", "s3:PutObject"),
    ("create_multipart_upload", "s3:PutObject"),
    ("upload_part", "s3:PutObject"),
    ("complete_multipart_upload", "s3:PutObject"),
    ("abort_multipart_upload", "s3:AbortMultipartUpload"),
    ("get_object", "s3:GetObject"),
    ("head_object", "s3:GetObject"),
    ("delete_object", "s3:DeleteObject"),
    ("head_bucket", "s3:ListBucket"),
    ("list_objects_v2", "s3:ListBucket"),
    // Without it S3 says of what is not there that it is forbidden.
    ("is_no_such_key", "s3:ListBucket"),
    ("put_item", "dynamodb:PutItem"),
    ("get_item", "dynamodb:GetItem"),
    ("update_item", "dynamodb:UpdateItem"),
    ("delete_item", "dynamodb:DeleteItem"),
    ("scan", "dynamodb:Scan"),
    ("put_events", "events:PutEvents"),
    ("describe_event_bus", "events:DescribeEventBus"),
];
/// `.query()` of DynamoDB takes nothing; that of Postgres takes a statement.
const QUERY: &str = "dynamodb:Query";

/// Names that other types have too: a call counts when what it is called on is named for the client.
const COMMON_METHODS: [&str; 9] = [
    "get", "put", "remove", "list", "check", "page", "part", "complete", "abort",
];

/// The template as JSON; a tagged node is `{"!Ref": …}`.
fn template(tree: &Tree) -> Value {
    let documents = Yaml::load_from_str(tree.get("template.yaml")).unwrap();
    documents.first().map_or(Value::Null, to_json)
}

fn to_json(node: &Yaml<'_>) -> Value {
    if let Yaml::Tagged(tag, inner) = node {
        return json!({ format!("!{}", tag.suffix): to_json(inner) });
    }
    if let Some(mapping) = node.as_mapping() {
        let entries = mapping
            .iter()
            .map(|(key, value)| (key.as_str().unwrap_or_default().to_owned(), to_json(value)));
        return Value::Object(entries.collect());
    }
    if let Some(sequence) = node.as_sequence() {
        return sequence.iter().map(to_json).collect();
    }
    node.as_str()
        .map(Value::from)
        .or_else(|| node.as_integer().map(Value::from))
        .or_else(|| node.as_bool().map(Value::from))
        .or_else(|| node.as_floating_point().map(|_| json!("a number")))
        .unwrap_or_default()
}

fn resources(template: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let resources = template["Resources"].as_object();
    resources
        .into_iter()
        .flatten()
        .map(|(name, resource)| (name.as_str(), resource))
}

fn of_type<'a>(template: &'a Value, wanted: &'a str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    resources(template).filter(move |(_, resource)| resource["Type"] == wanted)
}

/// Resource, folder in `functions/`, properties.
fn functions(template: &Value) -> Vec<(&str, &str, &Value)> {
    of_type(template, "AWS::Serverless::Function")
        .map(|(name, resource)| {
            let folder = &resource["Metadata"]["BuildProperties"]["Binary"];
            (
                name,
                folder.as_str().unwrap_or_default(),
                &resource["Properties"],
            )
        })
        .collect()
}

fn statements(properties: &Value) -> Vec<&Value> {
    let policies = properties["Policies"].as_array();
    policies
        .into_iter()
        .flatten()
        .filter_map(|policy| policy["Statement"].as_array())
        .flatten()
        .collect()
}

/// One, or a list of them.
fn each(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(values) => values.iter().collect(),
        Value::Null => Vec::new(),
        one @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
            vec![one]
        }
    }
}

fn words(value: &Value) -> BTreeSet<String> {
    each(value)
        .into_iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

fn refers_to(value: &Value, resource: &str) -> bool {
    match value {
        Value::Object(members) => members.iter().any(|(tag, inner)| {
            let named = inner.as_str().is_some_and(|text| {
                text == resource
                    || text
                        .strip_prefix(resource)
                        .is_some_and(|rest| rest.starts_with('.'))
            });
            (named && matches!(tag.as_str(), "!Ref" | "!GetAtt")) || refers_to(inner, resource)
        }),
        Value::Array(values) => values.iter().any(|value| refers_to(value, resource)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

// What every function has.

pub(super) fn functions_are_complete(tree: &Tree) -> Vec<String> {
    let template = template(tree);
    let globals = &template["Globals"]["Function"];
    let mut complaints = Vec::new();
    for (name, folder, properties) in functions(&template) {
        for setting in [
            "MemorySize",
            "Timeout",
            "Tracing",
            "Runtime",
            "Architectures",
            "VpcConfig",
            "ReservedConcurrentExecutions",
        ] {
            if properties[setting].is_null() && globals[setting].is_null() {
                complaints.push(format!("{name} has no {setting}"));
            }
        }
        // From another folder cargo links it with the features of what else it would build there.
        if properties["CodeUri"] != format!("functions/{folder}") {
            complaints.push(format!("{name} is not built from functions/{folder}"));
        }
        let group = &properties["LoggingConfig"]["LogGroup"]["!Ref"];
        let group = &template["Resources"][group.as_str().unwrap_or_default()];
        if group["Type"] != "AWS::Logs::LogGroup"
            || group["Properties"]["RetentionInDays"].is_null()
        {
            complaints.push(format!("{name} has no log group with a retention"));
        }
        let waits = refers_or_names(&template["Resources"][name]["DependsOn"], "Migrations")
            || environment(&template, properties)
                .values()
                .any(|value| refers_to(value, "Migrations"));
        if folder != "migrate" && !waits {
            complaints.push(format!("{name} does not wait for Migrations"));
        }
        let invoked = &properties["EventInvokeConfig"];
        if !invoked.is_null() && invoked["DestinationConfig"]["OnFailure"]["Destination"].is_null()
        {
            complaints.push(format!("{name}'s failed invocations go nowhere"));
        }
    }
    for (name, group) in of_type(&template, "AWS::Logs::LogGroup") {
        if group["Properties"]["RetentionInDays"].is_null() {
            complaints.push(format!("{name} is kept for ever"));
        }
    }
    let runs_migrations = of_type(&template, "Custom::Migrations")
        .any(|(_, resource)| refers_to(&resource["Properties"]["ServiceToken"], "MigrateFunction"));
    if !runs_migrations {
        complaints.push("nothing runs the migrations".to_owned());
    }
    complaints
}

fn refers_or_names(value: &Value, resource: &str) -> bool {
    each(value).iter().any(|name| **name == resource)
}

// Secrets.

/// The variables that `docs/configuration.md` calls secret.
fn secret_variables(tree: &Tree) -> BTreeSet<&str> {
    documents::described(tree.get("docs/configuration.md"))
        .iter()
        .filter(|one| one.is_secret)
        .map(|one| one.name)
        .collect()
}

/// The variables that the template gives each function.
pub(super) fn given(tree: &Tree) -> Vec<(String, BTreeSet<String>)> {
    let template = template(tree);
    functions(&template)
        .into_iter()
        .map(|(_, folder, properties)| {
            let variables = environment(&template, properties).into_iter();
            (folder.to_owned(), variables.map(|(name, _)| name).collect())
        })
        .collect()
}

fn environment<'a>(template: &'a Value, properties: &'a Value) -> Map<String, Value> {
    [&template["Globals"]["Function"], properties]
        .into_iter()
        .filter_map(|level| level["Environment"]["Variables"].as_object())
        .flatten()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

pub(super) fn no_secret_is_in_the_template(tree: &Tree) -> Vec<String> {
    let template = template(tree);
    let secret = secret_variables(tree);
    let mut complaints = Vec::new();
    for kind in ["secretsmanager", "ssm-secure"] {
        if tree
            .get("template.yaml")
            .contains(&format!("{{{{resolve:{kind}"))
        {
            complaints.push(format!(
                "template.yaml resolves {kind}: its value would be in the open"
            ));
        }
    }
    for (name, _, properties) in functions(&template) {
        for variable in environment(&template, properties).keys() {
            if secret.contains(variable.as_str()) {
                complaints.push(format!(
                    "{name} has the secret {variable} in its environment; give the ARN of a secret"
                ));
            }
        }
    }
    complaints
}

/// A function has the variables of the template that its code reads, and may read the secrets they name: no other.
pub(super) fn secrets_are_those_read(tree: &Tree) -> Vec<String> {
    let template = template(tree);
    let in_code: BTreeSet<String> = tree
        .deployed()
        .filter(|(path, _)| !path.ends_with(documents::VARIABLES))
        .flat_map(|(_, tokens)| literals(tokens))
        .collect();
    let mut complaints = Vec::new();
    for (name, folder, properties) in functions(&template) {
        let environment = environment(&template, properties);
        for variable in environment.keys() {
            if !in_code.contains(variable) {
                complaints.push(format!("{name} is given {variable}, which nothing reads"));
            }
        }
        let given: BTreeSet<&str> = environment
            .keys()
            .filter(|variable| variable.ends_with("_ARN"))
            .map(String::as_str)
            .collect();
        let read = arns_read(tree, folder);
        for variable in read.iter().filter(|read| !given.contains(read.as_str())) {
            complaints.push(format!("{name} reads {variable} and is not given it"));
        }
        for variable in given.iter().filter(|given| !read.contains(**given)) {
            complaints.push(format!("{name} is given {variable} and does not read it"));
        }
        let listed: Vec<&Value> = environment
            .iter()
            .filter(|(variable, _)| variable.ends_with("_SECRET_ARNS"))
            .flat_map(|(_, joined)| each(&joined["!Join"][1]))
            .collect();
        let allowed: Vec<&Value> = statements(properties)
            .into_iter()
            .filter(|statement| {
                words(&statement["Action"]).contains("secretsmanager:GetSecretValue")
            })
            .flat_map(|statement| each(&statement["Resource"]))
            .collect();
        for variable in &given {
            let secret = &environment[*variable];
            // Where a secret may be missing, the statement names it under a condition.
            let is_allowed = allowed
                .iter()
                .any(|resource| *resource == secret || resource["!If"][1] == *secret);
            if !is_allowed {
                complaints.push(format!("{name} may not read the secret of {variable}"));
            }
        }
        for secret in &listed {
            if !allowed.contains(secret) {
                complaints.push(format!("{name} may not read the listed secret {secret}"));
            }
        }
        if allowed.len() > given.len() + listed.len() {
            complaints.push(format!("{name} may read more secrets than it is given"));
        }
    }
    complaints
}

/// The `…_ARN` variables that a function's own code and the types it names read.
fn arns_read(tree: &Tree, folder: &str) -> BTreeSet<String> {
    let own = own_tokens(tree, folder);
    let mut flat = Vec::new();
    flatten(own.clone(), &mut flat);
    let named: BTreeSet<String> = flat
        .iter()
        .filter_map(|token| match token {
            TokenTree::Ident(ident) => Some(ident.to_string()),
            TokenTree::Group(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => None,
        })
        .collect();
    let mut texts = literals(own);
    for (path, tokens) in tree.deployed() {
        if path.starts_with("shared/") {
            for (type_, body) in impls(tokens) {
                // Postgres has a `Client` too.
                let is_meant = type_ != "Client" || names_path(&flat, super::stem(path));
                if named.contains(&type_) && is_meant {
                    texts.extend(literals(body));
                }
            }
        }
    }
    let is_arn = |text: &String| {
        text.ends_with("_SECRET_ARN")
            && text
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    };
    texts.into_iter().filter(is_arn).collect()
}

/// Whether `stripe::client`, in whatever form of `use`, is among the paths.
fn names_path(flat: &[TokenTree], module: &str) -> bool {
    flat.windows(6).any(|tokens| {
        is_ident(&tokens[0], "stripe")
            && is_punct(&tokens[1], ':')
            && tokens[3..].iter().any(|token| is_ident(token, module))
    })
}

/// The code of a function that is deployed.
fn own_tokens(tree: &Tree, folder: &str) -> TokenStream {
    let source = format!("functions/{folder}/src/");
    tree.deployed()
        .filter(|(path, _)| path.starts_with(&source))
        .map(|(_, tokens)| tokens)
        .collect()
}

/// `(Type, body)` of every `impl Type { … }`; of `impl Trait for Type` too.
fn impls(tokens: TokenStream) -> Vec<(String, TokenStream)> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut found = Vec::new();
    for (start, _) in tokens
        .iter()
        .enumerate()
        .filter(|(_, token)| is_ident(token, "impl"))
    {
        let mut type_ = String::new();
        // Inside `<…>` stand lifetimes and parameters.
        let mut depth = 0_u32;
        for token in &tokens[start + 1..] {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == '<' => depth += 1,
                TokenTree::Punct(punct) if punct.as_char() == '>' => {
                    depth = depth.saturating_sub(1)
                }
                TokenTree::Ident(ident) if depth == 0 && *ident != "for" => {
                    type_ = ident.to_string()
                }
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                    found.push((type_, group.stream()));
                    break;
                }
                TokenTree::Ident(_)
                | TokenTree::Punct(_)
                | TokenTree::Group(_)
                | TokenTree::Literal(_) => {}
            }
        }
    }
    found
}

// Policies.

/// The methods of a client, and the actions each needs, those of the methods it calls included.
type Methods = BTreeMap<String, BTreeSet<String>>;

/// Every type of `shared/runtime/src/aws` and its methods.
fn clients(tree: &Tree) -> BTreeMap<String, Methods> {
    let mut clients: BTreeMap<String, (Methods, BTreeMap<String, BTreeSet<String>>)> =
        BTreeMap::new();
    for (path, tokens) in tree.deployed() {
        if !path.starts_with("shared/runtime/src/aws/") {
            continue;
        }
        for (type_, body) in impls(tokens) {
            let client = clients.entry(type_).or_default();
            for (name, body) in methods(body) {
                let called = calls(body);
                let actions = called.iter().filter_map(action).collect();
                client.0.insert(name.clone(), actions);
                let own = called.into_iter().filter(|call| call.on == ["self"]);
                client.1.insert(name, own.map(|call| call.method).collect());
            }
        }
    }
    clients
        .into_iter()
        .map(|(type_, (mut methods, inner))| {
            // As often as the chain of calls could be long.
            for _ in 0..inner.len() {
                for (name, called) in &inner {
                    let more: BTreeSet<String> = called
                        .iter()
                        .filter_map(|method| methods.get(method).cloned())
                        .flatten()
                        .collect();
                    methods.entry(name.clone()).or_default().extend(more);
                }
            }
            (type_, methods)
        })
        .collect()
}

/// `(name, body)` of each `fn` of an `impl`.
fn methods(body: TokenStream) -> Vec<(String, TokenStream)> {
    let tokens: Vec<TokenTree> = body.into_iter().collect();
    let starts = tokens
        .iter()
        .enumerate()
        .filter(|(_, token)| is_ident(token, "fn"))
        .map(|(start, _)| start);
    starts
        .filter_map(|start| {
            let body = tokens[start..].iter().find_map(|token| match token {
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                    Some(group.stream())
                }
                TokenTree::Group(_)
                | TokenTree::Ident(_)
                | TokenTree::Punct(_)
                | TokenTree::Literal(_) => None,
            });
            Some((tokens.get(start + 1)?.to_string(), body?))
        })
        .collect()
}

/// `on.method(…)`; what is called on the result of a call is on nothing.
struct Call {
    on: Vec<String>,
    method: String,
    takes_nothing: bool,
}

fn action(call: &Call) -> Option<String> {
    if call.method == "query" && call.takes_nothing {
        return Some(QUERY.to_owned());
    }
    let (_, action) = ACTIONS.iter().find(|(name, _)| *name == call.method)?;
    Some((*action).to_owned())
}

fn calls(tokens: TokenStream) -> Vec<Call> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut found = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let TokenTree::Group(group) = token else {
            continue;
        };
        found.extend(calls(group.stream()));
        if group.delimiter() == Delimiter::Parenthesis
            && index >= 2
            && let TokenTree::Ident(method) = &tokens[index - 1]
            && (is_punct(&tokens[index - 2], '.') || is_punct(&tokens[index - 2], ':'))
        {
            let is_method = is_punct(&tokens[index - 2], '.');
            let on = if is_method {
                on_what(&tokens[..index - 2])
            } else {
                Vec::new()
            };
            found.push(Call {
                on,
                method: method.to_string(),
                takes_nothing: group.stream().is_empty(),
            });
        }
    }
    found
}

/// The name before the dot; of `configured(&app.event_bus).check()` what is called and what it is given last.
fn on_what(before: &[TokenTree]) -> Vec<String> {
    match before {
        [.., TokenTree::Ident(ident)] => vec![ident.to_string()],
        [.., TokenTree::Ident(called), TokenTree::Group(given)] => {
            let given: Vec<TokenTree> = given.stream().into_iter().collect();
            let mut names = on_what(&given);
            names.push(called.to_string());
            names
        }
        _ => Vec::new(),
    }
}

/// `ParkedEvents` → `parked_events`.
fn snake(type_: &str) -> String {
    let mut name = String::new();
    for letter in type_.chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

/// The actions that the code of a function needs: of the clients its `App`, or the `Clients` behind its routes, holds, the methods that it, or a module of
/// `shared` it names, calls.
fn actions_needed(tree: &Tree, folder: &str) -> BTreeSet<String> {
    let own = own_tokens(tree, folder);
    let mut flat = Vec::new();
    flatten(own.clone(), &mut flat);
    let mut called = calls_with_question_marks(own);
    for (path, tokens) in tree.deployed() {
        let module = path
            .strip_prefix("shared/src/")
            .and_then(|inside| inside.split(['/', '.']).next())
            .unwrap_or_default();
        if !matches!(module, "" | "lib") && flat.iter().any(|token| is_ident(token, module)) {
            called.extend(calls_with_question_marks(tokens));
        }
    }
    let app = format!("functions/{folder}/src/lib.rs");
    let app = split_tests(tokens(&app, tree.get(&app))).0;
    let mut held = types_in("App", &app);
    held.extend(types_in("Clients", &app));
    // What it holds may hold a client in its turn: `InvoiceArchive` has the bucket.
    for (path, tokens) in tree.deployed() {
        if path.starts_with("shared/") && !path.starts_with("shared/runtime/src/aws/") {
            let types: Vec<String> = held.keys().cloned().collect();
            for type_ in types {
                for (inner, field) in types_in(&type_, &tokens) {
                    held.entry(inner).or_insert(field);
                }
            }
        }
    }
    let clients = clients(tree);
    let mut needed = BTreeSet::new();
    for (type_, methods) in &clients {
        // An upload belongs to the bucket that began it.
        let is_held = held.contains_key(type_) || type_ == "Upload";
        if !is_held {
            continue;
        }
        let snake = snake(type_);
        let last_word = snake.rsplit('_').next().unwrap_or(&snake);
        let names = [
            Some(snake.as_str()),
            Some(last_word),
            snake.split('_').next(),
            held.get(type_).map(String::as_str),
            (type_ == "ParkedEvents").then_some("table"),
        ];
        for call in &called {
            let Some(actions) = methods.get(&call.method) else {
                continue;
            };
            let is_its = !COMMON_METHODS.contains(&call.method.as_str())
                || call
                    .on
                    .iter()
                    .any(|name| names.contains(&Some(name.as_str())));
            if is_its {
                needed.extend(actions.iter().cloned());
            }
        }
    }
    needed
}

/// Calls, `on?.method()` read as `on.method()`.
fn calls_with_question_marks(tokens: TokenStream) -> Vec<Call> {
    calls(without_question_marks(tokens))
}

fn without_question_marks(tokens: TokenStream) -> TokenStream {
    tokens
        .into_iter()
        .filter(|token| !is_punct(token, '?'))
        .map(|token| match token {
            TokenTree::Group(group) => TokenTree::Group(proc_macro2::Group::new(
                group.delimiter(),
                without_question_marks(group.stream()),
            )),
            other @ (TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_)) => other,
        })
        .collect()
}

/// Every type named in `struct Type { … }`, with the field it stands in.
fn types_in(type_: &str, tokens: &TokenStream) -> BTreeMap<String, String> {
    let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
    let start = tokens
        .windows(2)
        .position(|pair| is_ident(&pair[0], "struct") && is_ident(&pair[1], type_));
    let body = start.and_then(|start| match tokens.get(start + 2) {
        Some(TokenTree::Group(group)) => Some(group.stream()),
        _ => None,
    });
    let fields: Vec<TokenTree> = body.into_iter().flatten().collect();
    let mut held = BTreeMap::new();
    for field in fields.split(|token| is_punct(token, ',')) {
        let mut names = field.iter().filter_map(|token| match token {
            TokenTree::Ident(ident) => Some(ident.to_string()),
            TokenTree::Group(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => None,
        });
        if let Some(name) = names.next() {
            held.extend(names.map(|type_| (type_, name.clone())));
        }
    }
    held
}

pub(super) fn policies_are_the_calls(tree: &Tree) -> Vec<String> {
    let template = template(tree);
    let mut complaints = Vec::new();
    for (name, folder, properties) in functions(&template) {
        let mut allowed = BTreeSet::new();
        for statement in statements(properties) {
            allowed.extend(words(&statement["Action"]));
            let sid = statement["Sid"].as_str().unwrap_or("a statement");
            if words(&statement["Resource"]).contains("*") {
                complaints.push(format!("{name}: {sid} names no resource"));
            }
        }
        let secrets = !arns_read(tree, folder).is_empty();
        let mut needed = actions_needed(tree, folder);
        if secrets {
            needed.insert("secretsmanager:GetSecretValue".to_owned());
        }
        for action in needed.difference(&allowed) {
            complaints.push(format!("{name} calls {action} and may not"));
        }
        for action in allowed.difference(&needed) {
            complaints.push(format!("{name} may {action} and does not"));
        }
    }
    complaints
}

// Schedules.

pub(super) fn schedules_are_complete(tree: &Tree) -> Vec<String> {
    let template = template(tree);
    let mut complaints = Vec::new();
    let samples: Vec<Value> = tree
        .files
        .iter()
        .filter(|(path, _)| path.starts_with("events/schedule_"))
        .filter_map(|(_, text)| serde_json::from_str(text).ok())
        .collect();
    for (name, _, properties) in functions(&template) {
        let events = properties["Events"].as_object();
        for (event, schedule) in events.into_iter().flatten() {
            if schedule["Type"] == "Schedule" {
                complaints.push(format!("{name}: {event} is not a ScheduleV2"));
            }
            if schedule["Type"] != "ScheduleV2" {
                continue;
            }
            let schedule = &schedule["Properties"];
            if schedule["ScheduleExpressionTimezone"] != "UTC" {
                complaints.push(format!("{name}: {event} is not in UTC"));
            }
            for setting in ["RetryPolicy", "DeadLetterConfig"] {
                if schedule[setting].is_null() {
                    complaints.push(format!("{name}: {event} has no {setting}"));
                }
            }
            let input = schedule["Input"].as_str().unwrap_or_default();
            let input: Value = serde_json::from_str(input).unwrap_or_default();
            if input["time"] != "<aws.scheduler.scheduled-time>" {
                complaints.push(format!("{name}: {event} does not say its own time"));
            }
            let is_sampled = samples
                .iter()
                .any(|sample| sample["detail-type"] == input["detail-type"]);
            if !is_sampled {
                complaints.push(format!(
                    "{name}: {event} has no sample events/schedule_….json"
                ));
            }
        }
    }
    complaints
}

// Queues, rules, alarms.

pub(super) fn nothing_is_lost_silently(tree: &Tree) -> Vec<String> {
    let template = template(tree);
    let mut complaints = Vec::new();
    for (name, rule) in of_type(&template, "AWS::Events::Rule") {
        for target in each(&rule["Properties"]["Targets"]) {
            if target["DeadLetterConfig"].is_null() {
                complaints.push(format!("{name} has a target without DeadLetterConfig"));
            }
        }
    }
    let has_archive = |bus: &str| {
        of_type(&template, "AWS::Events::Archive")
            .any(|(_, archive)| refers_to(&archive["Properties"]["SourceArn"], bus))
    };
    for (name, bus) in of_type(&template, "AWS::Events::EventBus") {
        // A partner's bus is Stripe's to keep.
        if bus["Properties"]["EventSourceName"].is_null() && !has_archive(name) {
            complaints.push(format!("{name} has no archive"));
        }
    }
    let watches = |metric: &str, resource: &str| {
        of_type(&template, "AWS::CloudWatch::Alarm").any(|(_, alarm)| {
            alarm["Properties"]["MetricName"] == metric
                && refers_to(&alarm["Properties"]["Dimensions"], resource)
        })
    };
    for (name, _) in of_type(&template, "AWS::SQS::Queue") {
        // A queue that is emptied all the time is watched by the age of what lies in it.
        if !watches("ApproximateNumberOfMessagesVisible", name)
            && !watches("ApproximateAgeOfOldestMessage", name)
        {
            complaints.push(format!("no alarm sees what lies in {name}"));
        }
    }
    for (name, _, properties) in functions(&template) {
        let events = properties["Events"].as_object();
        let is_scheduled = events
            .into_iter()
            .flatten()
            .any(|(_, event)| event["Type"] == "ScheduleV2");
        let is_batch = is_scheduled || !properties["EventInvokeConfig"].is_null();
        if is_batch && !watches("Errors", name) {
            complaints.push(format!("no alarm sees the errors of {name}"));
        }
    }
    complaints
}

pub(super) fn alarms_are_explained(tree: &Tree) -> Vec<String> {
    let template = template(tree);
    let mut complaints = Vec::new();
    let runbook = tree.get("docs/runbook.md");
    let sections: BTreeSet<&str> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .filter(|title| title.ends_with("Alarm"))
        .collect();
    let dashboard: String = of_type(&template, "AWS::CloudWatch::Dashboard")
        .map(|(_, dashboard)| dashboard["Properties"]["DashboardBody"].to_string())
        .collect();
    let code: BTreeSet<String> = tree
        .deployed()
        .flat_map(|(_, tokens)| literals(tokens))
        .collect();
    let filtered: BTreeSet<&str> = of_type(&template, "AWS::Logs::MetricFilter")
        .flat_map(|(_, filter)| each(&filter["Properties"]["MetricTransformations"]))
        .filter_map(|metric| metric["MetricName"].as_str())
        .collect();
    let mut alarms = BTreeSet::new();
    for (name, alarm) in of_type(&template, "AWS::CloudWatch::Alarm") {
        alarms.insert(name);
        let alarm = &alarm["Properties"];
        let described = alarm["AlarmDescription"].as_str().unwrap_or_default();
        if !described.ends_with(&format!("Runbook: {name}")) {
            complaints.push(format!("{name} does not name its section of the runbook"));
        }
        if each(&alarm["AlarmActions"]).is_empty() {
            complaints.push(format!("{name} tells nobody"));
        }
        if alarm["TreatMissingData"].is_null() {
            complaints.push(format!("{name} does not say what silence means"));
        }
        if !sections.contains(name) {
            complaints.push(format!("docs/runbook.md has no section {name}"));
        }
        if !dashboard.contains(&format!("${{{name}.Arn}}")) {
            complaints.push(format!("the dashboard does not show {name}"));
        }
        let metric = alarm["MetricName"].as_str().unwrap_or_default();
        let is_ours = alarm["Namespace"] == "deedpro-billing";
        if is_ours && !code.contains(metric) && !filtered.contains(metric) {
            complaints.push(format!("{name} watches {metric}, which nothing counts"));
        }
    }
    for section in sections.difference(&alarms) {
        complaints.push(format!(
            "docs/runbook.md explains {section}, which is no alarm"
        ));
    }
    complaints
}

// The domain events on the bus.

/// The kinds of events that are published: what stands behind `detail_type:` or `DETAIL_TYPE: … =`, and what the ledger
/// announces.
fn published(tree: &Tree) -> BTreeSet<String> {
    let mut kinds = BTreeSet::new();
    for (path, tokens) in tree.deployed() {
        let mut flat = Vec::new();
        flatten(tokens, &mut flat);
        let announces = path == "shared/src/ledger/announcements.rs";
        for (index, token) in flat.iter().enumerate() {
            let TokenTree::Literal(_) = token else {
                continue;
            };
            let before = &flat[index.saturating_sub(6)..index];
            let is_kind = before
                .iter()
                .any(|token| is_ident(token, "detail_type") || is_ident(token, "DETAIL_TYPE"))
                || announces && before.last().is_none_or(|last| !is_punct(last, '='));
            let called_add = announces && before.iter().any(|token| is_ident(token, "add"));
            // `message("…")` makes one of its first argument.
            let called_message =
                matches!(before, [.., name, TokenTree::Group(_)] if is_ident(name, "message"));
            if is_kind || called_add || called_message {
                kinds.extend(literals(TokenStream::from(token.clone())));
            }
        }
    }
    // Stripe's own kinds are what the announcements are made from.
    kinds.retain(|kind| {
        let is_kind = kind.split('.').count() == 2
            && kind
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'.' | b'_'));
        is_kind && !kind.starts_with("charge.") && !kind.starts_with("payment_intent.")
    });
    kinds
}

pub(super) fn domain_events_have_samples(tree: &Tree) -> Vec<String> {
    let published = published(tree);
    let mut complaints = Vec::new();
    let mut sampled = BTreeSet::new();
    let samples = tree
        .files
        .iter()
        .filter(|(path, _)| path.starts_with("events/domain_"));
    for (path, text) in samples {
        let event: Value = serde_json::from_str(text).unwrap_or_default();
        let kind = event["detail-type"].as_str().unwrap_or_default();
        sampled.insert(kind.to_owned());
        if *path != format!("events/domain_{}.json", kind.replace('.', "_")) {
            complaints.push(format!("{path} is a sample of {kind}"));
        }
        let members: Vec<&String> = event["detail"]
            .as_object()
            .into_iter()
            .flat_map(|detail| detail.keys())
            .collect();
        if members != ["data", "event_id", "occurred_at", "subject"]
            || event["source"] != "deedpro.billing"
        {
            complaints.push(format!("{path} is not in the envelope of the bus"));
        }
    }
    for kind in published.difference(&sampled) {
        complaints.push(format!(
            "{kind} is published and has no sample events/domain_….json"
        ));
    }
    for kind in sampled.difference(&published) {
        complaints.push(format!("{kind} has a sample and is published nowhere"));
    }
    complaints
}

// The OpenAPI document.

pub(super) fn openapi_is_the_template(tree: &Tree) -> Vec<String> {
    let document: Value = serde_json::from_str(tree.get("docs/openapi.json")).unwrap_or_default();
    let described: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .into_iter()
        .flatten()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().into_iter().flatten();
            methods.map(move |(method, _)| (method.to_uppercase(), path.clone()))
        })
        .collect();
    let template = template(tree);
    let deployed: BTreeSet<(String, String)> = functions(&template)
        .into_iter()
        .filter_map(|(_, _, properties)| properties["Events"].as_object())
        .flatten()
        .filter(|(_, event)| event["Type"] == "HttpApi")
        .map(|(_, event)| {
            let text = |name: &str| {
                event["Properties"][name]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            };
            (text("Method"), text("Path"))
        })
        .collect();
    let lacks = deployed
        .difference(&described)
        .map(|(method, path)| format!("docs/openapi.json lacks {method} {path}"));
    let has = described.difference(&deployed).map(|(method, path)| {
        format!("docs/openapi.json has {method} {path}, which is not deployed")
    });
    lacks.chain(has).collect()
}

/// Every check complains about what it is for, and about nothing else.
mod can_fail {
    use super::*;

    const LIB: &str = "pub struct App { database: Database, event_bus: EventBus, bucket: Result<DocumentBucket, E> }
        fn f(app: &App) { app.event_bus.publish(x); configured(&app.bucket)?.get(key); map.put(1); }";
    const AWS: [(&str, &str); 2] = [
        (
            "shared/runtime/src/aws/event_bus.rs",
            "impl EventBus { fn publish(&self) { self.send() } fn send(&self) { self.client.put_events() }
                fn check(&self) { self.client.describe_event_bus() } }",
        ),
        (
            "shared/runtime/src/aws/document_bucket.rs",
            "impl<'a> DocumentBucket { fn get(&self) { self.client.get_object() } fn put(&self) { self.client.put_object() } }",
        ),
    ];
    const CONFIG: &str = "impl Database { fn f() { read(\"DATABASE_SECRET_ARN\") } }
        impl Tokens { fn f() { read(\"TOKENS_SECRET_ARN\") } }";
    const TEMPLATE: &str = r#"
Globals: {Function: {MemorySize: 1, Tracing: Active, Runtime: x, Architectures: [arm64], VpcConfig: {}}}
Resources:
  UsageLogs: {Type: AWS::Logs::LogGroup, Properties: {RetentionInDays: 30}}
  UsageFunction:
    Type: AWS::Serverless::Function
    DependsOn: Migrations
    Metadata: {BuildProperties: {Binary: usage}}
    Properties:
      CodeUri: functions/usage
      Timeout: 1
      ReservedConcurrentExecutions: 2
      LoggingConfig: {LogGroup: !Ref UsageLogs}
      Environment: {Variables: {DATABASE_SECRET_ARN: !Ref Secret}}
      Policies:
        - Statement:
            - {Sid: A, Action: secretsmanager:GetSecretValue, Resource: !Ref Secret}
            - {Sid: B, Action: [events:PutEvents, s3:GetObject], Resource: !GetAtt Bus.Arn}
      Events:
        Nightly:
          Type: ScheduleV2
          Properties:
            ScheduleExpressionTimezone: UTC
            RetryPolicy: {}
            DeadLetterConfig: {Arn: !GetAtt Queue.Arn}
            Input: '{"detail-type":"usage.x","time":"<aws.scheduler.scheduled-time>"}'
  Migrations: {Type: Custom::Migrations, Properties: {ServiceToken: !GetAtt MigrateFunction.Arn}}
  Bus: {Type: AWS::Events::EventBus}
  Archive: {Type: AWS::Events::Archive, Properties: {SourceArn: !GetAtt Bus.Arn}}
  Queue: {Type: AWS::SQS::Queue}
  QueueAlarm:
    Type: AWS::CloudWatch::Alarm
    Properties:
      AlarmDescription: "Full. Runbook: QueueAlarm"
      MetricName: ApproximateNumberOfMessagesVisible
      Dimensions: [{Name: QueueName, Value: !GetAtt Queue.QueueName}]
      TreatMissingData: notBreaching
      AlarmActions: [!Ref Topic]
  ErrorsAlarm:
    Type: AWS::CloudWatch::Alarm
    Properties:
      AlarmDescription: "Failed. Runbook: ErrorsAlarm"
      MetricName: Errors
      Dimensions: [{Name: FunctionName, Value: !Ref UsageFunction}]
      TreatMissingData: notBreaching
      AlarmActions: [!Ref Topic]
  Board: {Type: AWS::CloudWatch::Dashboard, Properties: {DashboardBody: "${QueueAlarm.Arn} ${ErrorsAlarm.Arn}"}}
"#;

    /// The complaints of a check when `from` is `to` in the template.
    fn complaints(check: fn(&Tree) -> Vec<String>, from: &str, to: &str) -> Vec<String> {
        assert!(TEMPLATE.contains(from), "{from}");
        let template = TEMPLATE.replace(from, to);
        let files = [
            ("template.yaml", template.as_str()),
            ("functions/usage/src/lib.rs", LIB),
            ("shared/runtime/src/config.rs", CONFIG),
            (
                "docs/configuration.md",
                "| `TOKENS` | | usage | yes | |\n| `PASSWORD` | | usage | yes | |\n| `PLAIN` | | usage | | |\n",
            ),
            (
                "docs/runbook.md",
                "## QueueAlarm\n## ErrorsAlarm\n## Replaying\n",
            ),
            (
                "events/schedule_usage_x.json",
                "{\"detail-type\": \"usage.x\"}",
            ),
        ];
        let files = files.into_iter().chain(AWS);
        let files = files.map(|(path, text)| (path.to_owned(), text.to_owned()));
        check(&Tree {
            files: files.collect(),
            ..Tree::default()
        })
    }

    #[track_caller]
    fn complains(check: fn(&Tree) -> Vec<String>, from: &str, to: &str, expected: &[&str]) {
        assert_eq!(complaints(check, "Resources", "Resources"), [""; 0]);
        let found = complaints(check, from, to);
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found:?}: {expected:?}");
        }
    }

    #[test]
    fn a_policy_that_allows_more_or_less_is_refused() {
        let check = policies_are_the_calls;
        complains(
            check,
            "[events:PutEvents, s3:GetObject]",
            "[events:PutEvents]",
            &["calls s3:GetObject"],
        );
        complains(
            check,
            "s3:GetObject]",
            "s3:GetObject, s3:PutObject, events:DescribeEventBus]",
            &["may events:DescribeEventBus", "may s3:PutObject"],
        );
        complains(
            check,
            "Resource: !GetAtt Bus.Arn",
            "Resource: \"*\"",
            &["B names no resource"],
        );
    }

    #[test]
    fn a_secret_that_is_not_read_or_not_allowed_is_refused() {
        let check = secrets_are_those_read;
        complains(
            check,
            "Resource: !Ref Secret",
            "Resource: !Ref Other",
            &["may not read"],
        );
        complains(
            check,
            "DATABASE_SECRET_ARN: !Ref Secret",
            "TOKENS_SECRET_ARN: !Ref Secret",
            &["reads DATABASE_SECRET_ARN", "does not read it"],
        );
        complains(
            check,
            "DATABASE_SECRET_ARN: !Ref Secret",
            "DATABASE_SECRET_ARN: !Ref Secret, NOBODYS: x",
            &["NOBODYS, which nothing reads"],
        );
    }

    #[test]
    fn a_secret_in_the_open_is_refused() {
        let check = no_secret_is_in_the_template;
        complains(
            check,
            "DATABASE_SECRET_ARN: !Ref Secret",
            "PASSWORD: '{{resolve:secretsmanager:x}}'",
            &["resolves secretsmanager", "the secret PASSWORD"],
        );
    }

    #[test]
    fn a_function_without_its_settings_is_refused() {
        let check = functions_are_complete;
        complains(
            check,
            "ReservedConcurrentExecutions: 2",
            "X: 2",
            &["ReservedConcurrentExecutions"],
        );
        complains(
            check,
            "CodeUri: functions/usage",
            "CodeUri: .",
            &["not built from functions/usage"],
        );
        complains(
            check,
            "DependsOn: Migrations",
            "DependsOn: Bus",
            &["does not wait"],
        );
        complains(
            check,
            "{RetentionInDays: 30}",
            "{}",
            &["no log group", "kept for ever"],
        );
        complains(
            check,
            "!GetAtt MigrateFunction.Arn",
            "x",
            &["nothing runs the migrations"],
        );
    }

    #[test]
    fn a_schedule_that_could_get_lost_is_refused() {
        let check = schedules_are_complete;
        complains(check, "Timezone: UTC", "Timezone: CET", &["not in UTC"]);
        complains(check, "RetryPolicy: {}", "Retry: {}", &["no RetryPolicy"]);
        complains(check, "usage.x", "usage.y", &["no sample"]);
        complains(check, "ScheduleV2", "Schedule", &["not a ScheduleV2"]);
    }

    #[test]
    fn what_no_alarm_sees_is_refused() {
        let check = nothing_is_lost_silently;
        complains(check, "!GetAtt Queue.QueueName", "x", &["lies in Queue"]);
        complains(
            check,
            "!Ref UsageFunction}",
            "x}",
            &["errors of UsageFunction"],
        );
        complains(
            check,
            "SourceArn: !GetAtt Bus.Arn",
            "SourceArn: x",
            &["Bus has no archive"],
        );
    }

    #[test]
    fn an_alarm_nobody_explains_is_refused() {
        let check = alarms_are_explained;
        complains(
            check,
            "Full. Runbook: QueueAlarm",
            "Full.",
            &["name its section"],
        );
        complains(
            check,
            "\"${QueueAlarm.Arn} ",
            "\"",
            &["dashboard does not show QueueAlarm"],
        );
        complains(
            check,
            "QueueAlarm",
            "FullAlarm",
            &["no section FullAlarm", "explains QueueAlarm"],
        );
        complains(
            check,
            "      MetricName: Errors",
            "      Namespace: deedpro-billing\n      MetricName: imagined",
            &["imagined, which nothing counts"],
        );
    }

    #[test]
    fn a_document_that_is_not_what_is_deployed_is_refused() {
        let template = TEMPLATE.replace(
            "      Events:",
            "      Events:\n        Get: {Type: HttpApi, Properties: {Method: GET, Path: /usage}}",
        );
        let found = |document: &str| {
            let files = [
                ("template.yaml", template.as_str()),
                ("docs/openapi.json", document),
            ];
            let files = files.map(|(path, text)| (path.to_owned(), text.to_owned()));
            openapi_is_the_template(&Tree {
                files: files.into(),
                ..Tree::default()
            })
        };
        assert_eq!(found(r#"{"paths": {"/usage": {"get": {}}}}"#), [""; 0]);
        let complaints = found(r#"{"paths": {"/usage": {"post": {}}}}"#);
        assert_eq!(complaints.len(), 2, "{complaints:#?}");
    }

    #[test]
    fn a_domain_event_without_its_sample_is_refused() {
        let sample = r#"{"source": "deedpro.billing", "detail-type": "usage.x",
            "detail": {"event_id": 1, "occurred_at": 1, "subject": 1, "data": 1}}"#;
        let found = |code: &str, sample: &str| {
            let files = [
                ("functions/usage/src/lib.rs", code),
                ("events/domain_usage_x.json", sample),
            ];
            let files = files.map(|(path, text)| (path.to_owned(), text.to_owned()));
            domain_events_have_samples(&Tree {
                files: files.into(),
                ..Tree::default()
            })
        };
        let code = "fn f() { Message { detail_type: \"usage.x\" } }";
        assert_eq!(found(code, sample), [""; 0]);
        let other = code.replace("usage.x", "usage.y");
        assert_eq!(found(&other, sample).len(), 2);
        let renamed = sample.replace("event_id", "id");
        let complaints = found(code, &renamed);
        assert_eq!(complaints.len(), 1, "{complaints:#?}");
        assert!(complaints[0].contains("envelope"));
    }
}
