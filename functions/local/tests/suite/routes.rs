//! What is deployed, and what `cargo lambda watch` serves, are the functions' route tables.

use std::collections::BTreeSet;

use local::bundle::Bundle;
use saphyr::{LoadableYamlNode, Yaml};
use testing::workspace_root;

/// Function, method and path.
type Routes = BTreeSet<(String, String, String)>;

fn of_the_functions() -> Routes {
    let routes = Bundle::routes().into_iter();
    routes
        .map(|route| (route.function.to_owned(), route.method, route.path))
        .collect()
}

fn file(name: &str) -> String {
    std::fs::read_to_string(workspace_root().join(name)).unwrap()
}

/// The routes of the one-function events of `template.yaml`.
fn of_the_template(template: &str) -> Routes {
    let documents = Yaml::load_from_str(template).unwrap();
    let resources = documents[0].as_mapping_get("Resources").unwrap();
    let text = |node: Option<&Yaml<'_>>| node.and_then(Yaml::as_str).unwrap_or_default().to_owned();
    let mut routes = Routes::new();
    for (_, resource) in resources.as_mapping().unwrap() {
        let within = |path: &[&str]| {
            path.iter()
                .try_fold(resource, |node, name| node.as_mapping_get(name))
        };
        let events = within(&["Properties", "Events"]).and_then(Yaml::as_mapping);
        for (_, event) in events.into_iter().flat_map(|events| events.iter()) {
            if text(event.as_mapping_get("Type")) == "HttpApi" {
                let properties = event.as_mapping_get("Properties").unwrap();
                routes.insert((
                    text(within(&["Metadata", "BuildProperties", "Binary"])),
                    text(properties.as_mapping_get("Method")),
                    text(properties.as_mapping_get("Path")),
                ));
            }
        }
    }
    routes
}

/// The router of `cargo lambda watch`, in `Cargo.toml`.
fn of_the_emulator(manifest: &str) -> Routes {
    let manifest: toml::Table = manifest.parse().unwrap();
    let router = ["workspace", "metadata", "lambda", "watch", "router"]
        .iter()
        .try_fold(&toml::Value::Table(manifest), |value, key| value.get(key))
        .and_then(toml::Value::as_table)
        .cloned()
        .unwrap();
    let mut routes = Routes::new();
    for (path, entries) in &router {
        for entry in entries.as_array().unwrap() {
            let text = |key| entry[key].as_str().unwrap().to_owned();
            routes.insert((text("function"), text("method"), path.clone()));
        }
    }
    routes
}

fn assert_same(place: &str, found: &Routes) {
    let expected = of_the_functions();
    let lacks: Vec<_> = expected.difference(found).collect();
    let more: Vec<_> = found.difference(&expected).collect();
    assert!(
        lacks.is_empty() && more.is_empty(),
        "{place} lacks {lacks:?}, and has {more:?}, which are no routes"
    );
}

#[test]
fn the_template_deploys_the_routes() {
    assert_same("template.yaml", &of_the_template(&file("template.yaml")));
}

#[test]
fn the_emulator_serves_the_routes() {
    assert_same("Cargo.toml's router", &of_the_emulator(&file("Cargo.toml")));
}
