//! Finds the statements in sources: the text and the types that each call runs, and the columns that are read of its
//! rows.
//!
//! A text is a literal, a constant, or what `format!` makes of them and of the `COLUMNS` of `columns!`. What a function
//! has as a parameter is looked up where the function is called. A text that is made in any other way is a complaint.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of forty kinds of expressions a statement is made of seven"
)]

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, File, FnArg, Lit, LitStr, Macro, Pat, Signature, Token, Type as Kind};
use tokio_postgres::types::Type;

/// The files whose SQL is that of the database's functions: `every_statement_of_the_ledgers_functions_runs`.
const OF_FUNCTIONS: [&str; 2] = [
    "shared/store/src/ledger/functions.rs",
    "shared/store/src/mirror.rs",
];

/// A statement as it is sent.
#[derive(Debug)]
pub(crate) struct Statement {
    /// The file and the line where the text begins.
    pub(crate) place: String,
    pub(crate) text: String,
    /// The declared types of its parameters.
    pub(crate) types: Vec<Type>,
    /// `None` when rows are not asked for.
    pub(crate) reads: Option<Reads>,
}

/// The columns that are read of a row, each with the Rust type that it is read into, where `columns!` tells.
pub(crate) type Reads = BTreeMap<String, Option<String>>;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) statements: Vec<Statement>,
    pub(crate) complaints: Vec<String>,
}

/// A text, and the places of the literals that it is made of.
#[derive(Debug, Clone, Default)]
struct Text {
    value: String,
    places: Vec<String>,
}

/// Texts, each with the types of its parameters.
type Made = Vec<(Text, Vec<Type>)>;

/// Why an expression has no value yet.
enum Unresolved {
    /// It depends on who calls the outermost function.
    Caller,
    Because(String),
}

type Resolved<T> = Result<T, Unresolved>;

fn because<T>(why: impl Into<String>) -> Resolved<T> {
    Err(Unresolved::Because(why.into()))
}

/// A call, or a function that is handed on by its name.
struct Call<'a> {
    /// `columns::first(…)` is `["columns", "first"]`, `db.query_typed(…)` is `["query_typed"]`.
    names: Vec<String>,
    is_method: bool,
    /// `None` where there is only the name.
    arguments: Option<Vec<&'a Expr>>,
    place: String,
}

struct Function<'a> {
    path: &'a str,
    /// The type whose `impl` it is in.
    of: Option<String>,
    name: String,
    /// Its parameters but `self`; one that is a pattern has no name.
    parameters: Vec<String>,
    is_method: bool,
    /// The names of its type parameters, and of the types that it is given and returns.
    generics: Vec<String>,
    takes: Vec<String>,
    returns: Vec<String>,
    lets: Vec<(String, &'a Expr)>,
    calls: Vec<Call<'a>>,
}

/// A function, and what its caller hands to it: `None` when the caller is not known.
#[derive(Clone)]
struct Frame<'f, 'a> {
    function: &'f Function<'a>,
    arguments: Option<&'f [&'a Expr]>,
}

impl<'f, 'a> Frame<'f, 'a> {
    fn outermost(function: &'f Function<'a>) -> Frame<'f, 'a> {
        Frame {
            function,
            arguments: None,
        }
    }
}

/// What stands in the sources. Things are known by their file and their name.
#[derive(Default)]
pub(crate) struct Sources<'a> {
    functions: Vec<Function<'a>>,
    constants: Vec<(&'a str, String, &'a Expr)>,
    /// The structs of `columns!`.
    rows: Vec<(&'a str, String, Reads)>,
    literals: Vec<(String, String)>,
}

impl<'a> Sources<'a> {
    /// Reads files, each with its path. `#[cfg(test)]` is left out.
    pub(crate) fn of(files: &'a [(String, File)]) -> Sources<'a> {
        let mut sources = Sources::default();
        for (path, file) in files {
            let mut collector = Collector {
                path,
                of: None,
                open: None,
                sources: &mut sources,
            };
            collector.visit_file(file);
        }
        sources
    }

    /// Every statement that is run. `elsewhere` are the functions, as `path::name`, whose texts are made at run time.
    pub(crate) fn statements(&self, elsewhere: &[&str]) -> Found {
        let mut found = Found::default();
        let (mut seen, mut unresolved) = (BTreeSet::new(), BTreeSet::new());
        for function in &self.functions {
            let name = format!("{}::{}", function.path, function.name);
            for call in &function.calls {
                let mut chains = vec![vec![Frame::outermost(function)]];
                while let Some(chain) = chains.pop() {
                    let why = match self.resolve(call, &chain, &mut seen) {
                        Ok(statements) => {
                            found.statements.extend(statements);
                            continue;
                        }
                        Err(Unresolved::Because(why)) => why,
                        Err(Unresolved::Caller) => {
                            let longer = self.callers(&chain);
                            if !longer.is_empty() {
                                chains.extend(longer);
                                continue;
                            }
                            "nobody calls this with a statement or a row's struct".to_owned()
                        }
                    };
                    if elsewhere.contains(&name.as_str()) {
                        unresolved.insert(name.clone());
                    } else {
                        found.complaints.push(format!("{}: {why}", call.place));
                    }
                }
            }
        }
        let stale = elsewhere.iter().filter(|name| !unresolved.contains(**name));
        let stale = stale.map(|name| format!("{name} makes no statement at run time"));
        let unseen = self.literals.iter().filter(|(place, text)| {
            let is_elsewhere = elsewhere.iter().any(|name| {
                let (path, function) = name.split_once("::").unwrap_or_default();
                first_line(text) == format!("-- {}::{function}", stem(path))
            });
            let is_elsewhere =
                is_elsewhere || OF_FUNCTIONS.iter().any(|file| place.starts_with(file));
            is_sql(text) && !seen.contains(place) && !is_elsewhere
        });
        let unseen = unseen.map(|(place, text)| {
            let start = first_line(text);
            format!("{place}: {start:?} is run by no call that the test sees")
        });
        found.complaints.extend(stale.chain(unseen));
        found
    }

    /// The chain with each caller of its outermost function; none that is in it already.
    fn callers<'f>(&'f self, chain: &[Frame<'f, 'a>]) -> Vec<Vec<Frame<'f, 'a>>> {
        let mut longer = Vec::new();
        let Some((Frame { function, .. }, inner)) = chain.split_last() else {
            return longer;
        };
        for caller in &self.functions {
            for call in &caller.calls {
                let is_known = chain
                    .iter()
                    .any(|frame| std::ptr::eq(frame.function, caller));
                let arguments = call.arguments.as_deref();
                if !is_known && arguments.is_some() && is_call_of(caller.path, call, function) {
                    let called = Frame {
                        function,
                        arguments,
                    };
                    longer.push([inner, &[called, Frame::outermost(caller)]].concat());
                }
            }
        }
        longer
    }

    /// The statements that a call of the innermost function runs; none when it has nothing to do with SQL.
    fn resolve(
        &self,
        call: &Call<'a>,
        chain: &[Frame<'_, 'a>],
        seen: &mut BTreeSet<String>,
    ) -> Resolved<Vec<Statement>> {
        let name = call.names.last().map_or("", String::as_str);
        let arguments = call.arguments.as_deref().unwrap_or_default();
        let (made, reads) = match arguments {
            [_, select, order, filters, span, _] if call.names == ["list", "read"] => {
                self.list(chain, select, order, filters, span)?
            }
            _ if !call.is_method => return Ok(Vec::new()),
            [text] if matches!(name, "batch_execute" | "simple_query" | "prepare") => {
                (vec![(self.text(text, chain)?, Vec::new())], None)
            }
            [text, types, ..] if name.contains("_typed") => {
                let types = self.types(types, chain)?;
                let texts = self.texts(text, chain)?.into_iter();
                let is_read = name.starts_with("query");
                let reads = is_read.then(|| self.reads_of_chain(chain)).transpose()?;
                (texts.map(|text| (text, types.clone())).collect(), reads)
            }
            [_, _, ..] if name.starts_with("query") || name.starts_with("execute") => {
                return because(
                    "its parameters have no types: use `query_typed` or `execute_typed`",
                );
            }
            _ => return Ok(Vec::new()),
        };
        let statements = made.into_iter().map(|(text, types)| {
            seen.extend(text.places.iter().cloned());
            Statement {
                place: text.places.first().unwrap_or(&call.place).clone(),
                text: text.value,
                types,
                reads: reads.clone(),
            }
        });
        Ok(statements.collect())
    }

    /// The statements of a list, as `store::list` makes them: with each of its filters, with each and all that follow,
    /// and with none; with and without a start, when it has a span.
    fn list(
        &self,
        chain: &[Frame<'_, 'a>],
        select: &Expr,
        order: &Expr,
        filters: &Expr,
        span: &Expr,
    ) -> Resolved<(Made, Option<Reads>)> {
        let select = self.text(select, chain)?;
        let Expr::Struct(order) = order else {
            return because("the order of the list is no struct");
        };
        let [at, key] = ["at", "key"].map(|name| {
            let mut fields = order.fields.iter();
            let field =
                fields.find(|field| matches!(&field.member, syn::Member::Named(of) if of == name));
            field.map_or(because("the order has no such member"), |field| {
                self.text(&field.expr, chain)
            })
        });
        let (at, key) = (&at?.value, &key?.value);
        let mut returns = chain[0].function.returns.iter();
        let key_type = match returns.find(|name| *name == "i64" || *name == "String") {
            Some(key) if key == "i64" => Type::INT8,
            Some(_) => Type::TEXT,
            None => return because("the key of the list is neither `i64` nor `String`"),
        };
        let mut known = Vec::new();
        for filter in elements(filters)? {
            let Expr::Call(call) = filter else {
                return because("a filter of the list is no call");
            };
            let [column, _, column_type] = call.args.iter().collect::<Vec<_>>()[..] else {
                return because("a filter is a column, a value and its type");
            };
            known.push(store::list::Filter {
                column: self.text(column, chain)?.value.leak(),
                column_type: self.type_of(column_type, chain)?,
                is_sorted: matches!(&*call.func, Expr::Path(of) if of.path.is_ident("sorted")),
            });
        }
        let mut reads = self.struct_of(chain)?;
        reads.entry("listed_at".to_owned()).or_insert(None);
        reads.entry(key.clone()).or_insert(None);
        let has_span = !matches!(span, Expr::Call(_));
        let mut made = Vec::new();
        for first in 0..=known.len() {
            for given in [&known[first..], &known[first..known.len().min(first + 1)]] {
                for has_start in [false, has_span] {
                    let order = store::list::Order { at, key };
                    let (value, types) = store::list::statement(
                        &select.value,
                        order,
                        key_type.clone(),
                        has_start,
                        given,
                    );
                    let places = select.places.clone();
                    made.push((Text { value, places }, types));
                }
            }
        }
        Ok((made, Some(reads)))
    }

    fn text(&self, expr: &Expr, chain: &[Frame<'_, 'a>]) -> Resolved<Text> {
        let mut texts = self.texts(expr, chain)?;
        texts
            .pop()
            .filter(|_| texts.is_empty())
            .ok_or(Unresolved::Because("one text is wanted".to_owned()))
    }

    /// What a text may be: more than one where a `match` chooses.
    fn texts(&self, expr: &Expr, chain: &[Frame<'_, 'a>]) -> Resolved<Vec<Text>> {
        let path = chain[0].function.path;
        match expr {
            Expr::Lit(syn::ExprLit {
                lit: Lit::Str(text),
                ..
            }) => Ok(vec![Text {
                value: text.value(),
                places: vec![place(path, text.span())],
            }]),
            Expr::Reference(of) => self.texts(&of.expr, chain),
            Expr::MethodCall(call) if call.method == "as_str" => self.texts(&call.receiver, chain),
            Expr::Macro(of) if of.mac.path.is_ident("format") => self.formatted(&of.mac, chain),
            Expr::Match(choice) => {
                let arms = choice.arms.iter().map(|arm| &*arm.body);
                let arms = arms.filter(|body| !matches!(body, Expr::Return(_)));
                let texts: Resolved<Vec<_>> = arms.map(|body| self.texts(body, chain)).collect();
                Ok(texts?.concat())
            }
            Expr::Path(of) => {
                let names = names(&of.path);
                if let [row, columns] = &names[..]
                    && columns == "COLUMNS"
                    && let Some(members) = self.row(path, row)
                {
                    let names: Vec<&str> = members.keys().map(String::as_str).collect();
                    return Ok(vec![Text {
                        value: names.join(", "),
                        places: Vec::new(),
                    }]);
                }
                let (expr, chain) = self.value(&names, chain)?;
                self.texts(expr, chain)
            }
            _ => because("its text is made at run time, so the test cannot prepare it"),
        }
    }

    /// What `format!` makes. A place is `{}` or `{name}`.
    fn formatted(&self, call: &Macro, chain: &[Frame<'_, 'a>]) -> Resolved<Vec<Text>> {
        let parsed = call.parse_body_with(Punctuated::<Expr, Token![,]>::parse_terminated);
        let mut arguments = match parsed {
            Ok(arguments) => arguments.into_iter(),
            Err(error) => return because(error.to_string()),
        };
        let Some(format) = arguments.next() else {
            return because("`format!` without a text");
        };
        let format = self.text(&format, chain)?;
        if format.value.contains("{{") || format.value.contains("}}") {
            return because("the test does not know `{{`");
        }
        let mut pieces = format.value.split('{');
        let mut made = vec![Text {
            value: pieces.next().unwrap_or_default().to_owned(),
            places: format.places,
        }];
        for piece in pieces {
            let (name, after) = piece.split_once('}').unwrap_or((piece, ""));
            let value = match name {
                "" => arguments.next(),
                name => syn::parse_str(name).ok(),
            };
            let Some(value) = value else {
                return because(format!("{{{name}}} has no value"));
            };
            let values = self.texts(&value, chain)?;
            let joined = made.iter().flat_map(|start| {
                values.iter().map(|value| Text {
                    value: [&start.value, &value.value, after].concat(),
                    places: [&start.places[..], &value.places].concat(),
                })
            });
            made = joined.collect();
        }
        Ok(made)
    }

    fn types(&self, expr: &Expr, chain: &[Frame<'_, 'a>]) -> Resolved<Vec<Type>> {
        match expr {
            Expr::Path(of) => {
                let (expr, chain) = self.value(&names(&of.path), chain)?;
                self.types(expr, chain)
            }
            Expr::Reference(of) => self.types(&of.expr, chain),
            Expr::MethodCall(call) if call.method == "concat" => {
                let parts = elements(&call.receiver)?.into_iter();
                let types: Resolved<Vec<_>> = parts.map(|part| self.types(part, chain)).collect();
                Ok(types?.concat())
            }
            _ => {
                let pairs = elements(expr)?.into_iter().map(|pair| match pair {
                    Expr::Tuple(pair) if pair.elems.len() == 2 => {
                        self.type_of(&pair.elems[1], chain)
                    }
                    _ => because("a parameter is no pair of a value and its type"),
                });
                pairs.collect()
            }
        }
    }

    fn type_of(&self, expr: &Expr, chain: &[Frame<'_, 'a>]) -> Resolved<Type> {
        let Expr::Path(of) = expr else {
            return because("a parameter's type is not `Type::…`");
        };
        let names = names(&of.path);
        let [_, name] = &names[..] else {
            let (expr, chain) = self.value(&names, chain)?;
            return self.type_of(expr, chain);
        };
        let name = name.to_lowercase();
        let name = name
            .strip_suffix("_array")
            .map_or(name.clone(), |of| format!("_{of}"));
        // Postgres gives its own types ids below 10,000.
        let mut known = (1..10_000).filter_map(Type::from_oid);
        let found = known.find(|known| known.name() == name);
        found.ok_or(Unresolved::Because(format!(
            "`{name}` is no type of Postgres"
        )))
    }

    /// What a name stands for: what `let` gave it, what the caller hands over, or a constant.
    fn value<'f>(
        &'f self,
        names: &[String],
        chain: &'f [Frame<'f, 'a>],
    ) -> Resolved<(&'a Expr, &'f [Frame<'f, 'a>])> {
        let Frame {
            function,
            arguments,
        } = &chain[0];
        if let [name] = names {
            if let Some((_, expr)) = function.lets.iter().rfind(|(known, _)| known == name) {
                return Ok((expr, chain));
            }
            if let Some(index) = function.parameters.iter().position(|known| known == name) {
                let arguments = arguments.ok_or(Unresolved::Caller)?;
                return Ok((arguments[index], &chain[1..]));
            }
        }
        let constant = self.constants.iter().find(|(path, known, _)| match names {
            [name] => known == name && *path == function.path,
            [.., module, name] => known == name && stem(path) == module,
            [] => false,
        });
        match constant {
            Some((_, _, expr)) => Ok((expr, chain)),
            None => because(format!(
                "the test cannot tell what `{}` is",
                names.join("::")
            )),
        }
    }

    /// What the innermost function reads, and its callers as far as rows are returned to them.
    fn reads_of_chain(&self, chain: &[Frame<'_, 'a>]) -> Resolved<Reads> {
        let mut reads = Reads::new();
        for (depth, Frame { function, .. }) in chain.iter().enumerate() {
            self.reads(&chain[depth..], &mut reads)?;
            let mut returns = function.returns.iter();
            if !returns.any(|name| name == "Row" || function.generics.contains(name)) {
                return Ok(reads);
            }
        }
        Err(Unresolved::Caller)
    }

    fn reads(&self, chain: &[Frame<'_, 'a>], reads: &mut Reads) -> Resolved<()> {
        let function = chain[0].function;
        for call in &function.calls {
            let names: Vec<&str> = call.names.iter().map(String::as_str).collect();
            match (&names[..], call.arguments.as_deref().unwrap_or_default()) {
                (["try_get"], [name]) | (["Column", "read"], [_, _, name]) => {
                    for text in self.texts(name, chain)? {
                        reads.entry(text.value).or_insert(None);
                    }
                }
                ([of, "from_row"], _) if function.generics.iter().any(|name| name == of) => {
                    reads.extend(self.struct_of(chain)?);
                }
                ([of, "from_row"], _) => reads.extend(self.struct_named(function.path, of)?),
                ([of, "read"], [_, _]) if self.row(function.path, of).is_some() => {
                    reads.extend(self.struct_named(function.path, of)?);
                }
                _ if call.is_method => {}
                ([value], []) if function.lets.iter().any(|(name, _)| name == value) => {}
                ([value], []) if function.parameters.iter().any(|name| name == value) => {}
                _ => {
                    let mut readers = self.functions.iter();
                    let reader = readers.find(|reader| {
                        reader.takes.iter().any(|name| name == "Row")
                            && is_call_of(function.path, call, reader)
                    });
                    if let Some(function) = reader {
                        let frame = Frame {
                            function,
                            arguments: call.arguments.as_deref(),
                        };
                        self.reads(&[&[frame], chain].concat(), reads)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The columns of the struct that a function of the chain returns.
    fn struct_of(&self, chain: &[Frame<'_, 'a>]) -> Resolved<Reads> {
        for Frame { function, .. } in chain {
            for name in &function.returns {
                if let Ok(reads) = self.struct_named(function.path, name) {
                    return Ok(reads);
                }
            }
        }
        Err(Unresolved::Caller)
    }

    fn struct_named(&self, path: &str, name: &str) -> Resolved<Reads> {
        if let Some(members) = self.row(path, name) {
            return Ok(members.clone());
        }
        let readers = self.functions.iter();
        let mut readers =
            readers.filter(|of| of.name == "from_row" && of.of.as_deref() == Some(name));
        let reader = readers
            .clone()
            .find(|of| of.path == path)
            .or_else(|| readers.next());
        let Some(reader) = reader else {
            return because(format!("the test does not know what `{name}` is read from"));
        };
        let mut reads = Reads::new();
        self.reads(&[Frame::outermost(reader)], &mut reads)?;
        Ok(reads)
    }

    /// The members of a struct of `columns!`: the one of the file, or of another file.
    fn row(&self, path: &str, name: &str) -> Option<&Reads> {
        let mut rows = self.rows.iter().filter(|(_, known, _)| known == name);
        let row = rows
            .clone()
            .find(|(known, _, _)| *known == path)
            .or_else(|| rows.next());
        row.map(|(_, _, members)| members)
    }
}

/// Whether a call in the file at `path` is one of that function, as far as names tell.
fn is_call_of(path: &str, call: &Call<'_>, function: &Function<'_>) -> bool {
    let is_here = path == function.path;
    let folder = |path| str::rsplit_once(path, '/').unwrap_or_default().0;
    let count = call.arguments.as_ref().map(Vec::len);
    let is_whole = count.is_none_or(|count| count == function.parameters.len());
    let (Some(name), module) = (call.names.last(), call.names.iter().nth_back(1)) else {
        return false;
    };
    let is_there = match (module, &function.of) {
        (None, of) => is_here && of.is_some() == call.is_method,
        (Some(module), Some(of)) => is_here && module == of,
        (Some(module), None) => {
            folder(path) == folder(function.path) && module == stem(function.path)
        }
    };
    is_there && *name == function.name && is_whole && call.is_method <= function.is_method
}

/// `invoices` of `shared/store/src/invoices.rs`.
fn stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.strip_suffix(".rs").unwrap_or(name)
}

pub(crate) fn first_line(text: &str) -> &str {
    text.trim().lines().next().unwrap_or_default().trim()
}

/// A named statement, or one that begins with a word of SQL's.
fn is_sql(text: &str) -> bool {
    let words: Vec<&str> = text.split_whitespace().take(2).collect();
    match words[..] {
        ["--", name] => name.contains("::"),
        [first, _] => [
            "SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "MERGE", "LOCK",
        ]
        .contains(&first),
        _ => false,
    }
}

fn place(path: &str, span: Span) -> String {
    format!("{path}:{}", span.start().line)
}

fn names(path: &syn::Path) -> Vec<String> {
    path.segments
        .iter()
        .map(|segment| segment.ident.to_string())
        .collect()
}

/// The elements of an array.
fn elements(expr: &Expr) -> Resolved<Vec<&Expr>> {
    match expr {
        Expr::Reference(of) => elements(&of.expr),
        Expr::Array(of) => Ok(of.elems.iter().collect()),
        _ => because("its parameters are no array that the test can read"),
    }
}

/// Walks a file and notes what stands in it.
struct Collector<'a, 's> {
    path: &'a str,
    of: Option<String>,
    /// The function whose body is being walked, by its index.
    open: Option<usize>,
    sources: &'s mut Sources<'a>,
}

impl<'a> Collector<'a, '_> {
    fn function(&mut self, signature: &'a Signature, walk: impl FnOnce(&mut Self)) {
        let inputs = signature.inputs.iter().filter_map(|input| match input {
            FnArg::Typed(input) => Some(input),
            FnArg::Receiver(_) => None,
        });
        let returns = match &signature.output {
            syn::ReturnType::Type(_, output) => kinds(output),
            syn::ReturnType::Default => Vec::new(),
        };
        let generics = signature.generics.type_params();
        self.sources.functions.push(Function {
            path: self.path,
            of: self.of.clone(),
            name: signature.ident.to_string(),
            parameters: inputs.clone().map(|input| name_of(&input.pat)).collect(),
            is_method: signature.receiver().is_some(),
            generics: generics.map(|generic| generic.ident.to_string()).collect(),
            takes: inputs.flat_map(|input| kinds(&input.ty)).collect(),
            returns,
            lets: Vec::new(),
            calls: Vec::new(),
        });
        let outer = self.open.replace(self.sources.functions.len() - 1);
        walk(self);
        self.open = outer;
    }

    fn call(
        &mut self,
        names: Vec<String>,
        is_method: bool,
        arguments: Option<Vec<&'a Expr>>,
        span: Span,
    ) {
        if let Some(index) = self.open {
            self.sources.functions[index].calls.push(Call {
                names,
                is_method,
                arguments,
                place: place(self.path, span),
            });
        }
    }

    fn literals(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => self.literals(group.stream()),
                TokenTree::Literal(literal) => {
                    if let Ok(text) = syn::parse2::<LitStr>(TokenTree::from(literal).into()) {
                        self.literal(&text);
                    }
                }
                TokenTree::Ident(_) | TokenTree::Punct(_) => {}
            }
        }
    }

    fn literal(&mut self, text: &LitStr) {
        let place = place(self.path, text.span());
        self.sources.literals.push((place, text.value()));
    }

    /// The struct that `columns!` defines: its name is behind `struct`, its members are in the last braces.
    fn row(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let name = tokens
            .windows(2)
            .find(|pair| pair[0].to_string() == "struct");
        let fields = tokens
            .last()
            .map(|last| syn::parse2::<syn::FieldsNamed>(last.clone().into()));
        let (Some(name), Some(Ok(fields))) = (name, fields) else {
            return;
        };
        let members = fields.named.iter().filter_map(|field| {
            let kind = kinds(&field.ty).into_iter().find(|name| name != "Option")?;
            Some((field.ident.as_ref()?.to_string(), Some(kind)))
        });
        let row = (self.path, name[1].to_string(), members.collect());
        self.sources.rows.push(row);
    }
}

impl Collector<'_, '_> {
    /// The columns that `mirrored!` gives one by one: its type is the first token, its columns are in the first braces.
    fn mirrored(&mut self, tokens: TokenStream) {
        let mut tokens = tokens.into_iter();
        let name = tokens.next().map(|name| name.to_string());
        let columns = tokens.find_map(|token| match token {
            TokenTree::Group(columns) => Some(columns.stream()),
            TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => None,
        });
        let columns: Vec<TokenTree> = columns.into_iter().flatten().collect();
        let columns = columns
            .split(|token| token.to_string() == ",")
            .filter(|column| matches!(column.first(), Some(TokenTree::Ident(_))))
            .filter_map(|column| column.last())
            .map(|column| (column.to_string().trim_matches('"').to_owned(), None));
        let row = (self.path, name.unwrap_or_default(), columns.collect());
        self.sources.rows.push(row);
    }
}

impl<'a> Visit<'a> for Collector<'a, '_> {
    fn visit_attribute(&mut self, _: &'a Attribute) {}

    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'a syn::ItemImpl) {
        if !is_test(&item.attrs) {
            self.of = kinds(&item.self_ty).into_iter().next();
            visit::visit_item_impl(self, item);
            self.of = None;
        }
    }

    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        if !is_test(&item.attrs) {
            self.function(&item.sig, |walk| visit::visit_item_fn(walk, item));
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        if !is_test(&item.attrs) {
            self.function(&item.sig, |walk| visit::visit_impl_item_fn(walk, item));
        }
    }

    fn visit_item_const(&mut self, item: &'a syn::ItemConst) {
        let constant = (self.path, item.ident.to_string(), &*item.expr);
        self.sources.constants.push(constant);
        visit::visit_item_const(self, item);
    }

    fn visit_local(&mut self, local: &'a syn::Local) {
        if let (Some(init), Some(index)) = (&local.init, self.open) {
            let value = (name_of(&local.pat), &*init.expr);
            self.sources.functions[index].lets.push(value);
        }
        visit::visit_local(self, local);
    }

    fn visit_expr_call(&mut self, call: &'a syn::ExprCall) {
        let arguments = Some(call.args.iter().collect());
        match &*call.func {
            Expr::Path(of) => {
                let first = of.path.segments.first();
                let span = first.map_or_else(Span::call_site, |first| first.ident.span());
                self.call(names(&of.path), false, arguments, span);
            }
            other => self.visit_expr(other),
        }
        for argument in &call.args {
            self.visit_expr(argument);
        }
    }

    fn visit_expr_method_call(&mut self, call: &'a syn::ExprMethodCall) {
        let arguments = Some(call.args.iter().collect());
        self.call(
            vec![call.method.to_string()],
            true,
            arguments,
            call.method.span(),
        );
        visit::visit_expr_method_call(self, call);
    }

    fn visit_expr_path(&mut self, of: &'a syn::ExprPath) {
        self.call(names(&of.path), false, None, Span::call_site());
    }

    fn visit_macro(&mut self, call: &'a Macro) {
        if names(&call.path)
            .iter()
            .any(|name| name.ends_with("columns"))
        {
            self.row(call.tokens.clone());
        }
        if names(&call.path).iter().any(|name| name == "mirrored") {
            self.mirrored(call.tokens.clone());
        }
        self.literals(call.tokens.clone());
    }

    fn visit_lit_str(&mut self, text: &'a LitStr) {
        self.literal(text);
    }
}

/// The names of the types in a type, outermost first.
fn kinds(kind: &Kind) -> Vec<String> {
    struct Names(Vec<String>);
    impl<'a> Visit<'a> for Names {
        fn visit_path_segment(&mut self, segment: &'a syn::PathSegment) {
            self.0.push(segment.ident.to_string());
            visit::visit_path_segment(self, segment);
        }
    }
    let mut names = Names(Vec::new());
    names.visit_type(kind);
    names.0
}

fn name_of(pattern: &Pat) -> String {
    match pattern {
        Pat::Ident(name) => name.ident.to_string(),
        Pat::Type(typed) => name_of(&typed.pat),
        _ => String::new(),
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    let mut attributes = attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("cfg"));
    attributes.any(|attribute| {
        attribute
            .parse_args::<syn::Ident>()
            .is_ok_and(|name| name == "test")
    })
}
