//! The revenue summary for a person, from the answer of `GET /admin/revenue`.

use crate::story::Outcomes;
use domain::money::{Currency, Money};
use jiff::Timestamp;
use serde_json::Value;

/// The figures as a table, one column per currency, and the outcomes of the sample's events. What
/// could not be read says so; it is never a zero.
#[must_use]
pub fn text(revenue: &Value, events: &Outcomes) -> String {
    let text_of = |name| revenue.get(name).and_then(Value::as_str).unwrap_or("?");
    let reporting = text_of("currency");
    let others = array(revenue, "by_currency").filter_map(|row| {
        let currency = row.get("currency")?.as_str()?;
        (currency != reporting).then_some((currency, row))
    });
    let columns: Vec<(&str, &Value)> = std::iter::once((reporting, revenue))
        .chain(others)
        .collect();

    // To the second: more is noise here.
    let as_of = text_of("as_of").parse::<Timestamp>();
    let as_of = as_of.map(|at| at.strftime("%F %T UTC").to_string());
    let as_of = as_of.unwrap_or_else(|_| "an unknown instant".to_owned());
    let mut text = format!("Revenue as of {as_of}\n\n");
    line(
        &mut text,
        "",
        columns.iter().map(|&(name, _)| name.to_owned()),
    );
    let rows = [
        ("revenue, all time", "/overview/total_revenue_cents"),
        ("revenue, this month", "/overview/monthly_revenue_cents"),
        ("  Stripe's fees", "/overview/stripe_fees_cents"),
        ("  refunds", "/overview/refunds_cents"),
        ("  disputes", "/overview/disputes_cents"),
        ("  net", "/overview/net_monthly_revenue_cents"),
        ("MRR", "/mrr_arr/mrr_cents"),
        ("ARR", "/mrr_arr/arr_cents"),
    ];
    for (label, pointer) in rows {
        let amounts = columns
            .iter()
            .map(|&(currency, row)| amount(row.pointer(pointer), currency));
        line(&mut text, label, amounts);
    }

    text.push_str(&format!("\nRevenue by month, {reporting}\n"));
    for month in array(revenue, "monthly_breakdown") {
        let name = month.get("month").and_then(Value::as_str).unwrap_or("?");
        let revenue = amount(month.get("revenue_cents"), reporting);
        line(&mut text, name, [revenue]);
    }

    let counts = ["active", "trialing", "past_due"].map(|status| {
        let count = revenue.pointer(&format!("/subscriptions/{status}"));
        let count = count.and_then(Value::as_i64);
        let count = count.map_or_else(|| NOT_KNOWN.to_owned(), |count| count.to_string());
        format!("{count} {}", status.replace('_', " "))
    });
    text.push_str(&format!("\nSubscriptions  {}\n", counts.join(", ")));
    if !events.is_empty() {
        let counts = ["applied", "duplicate", "ignored", "parked"]
            .map(|outcome| format!("{} {outcome}", events.get(outcome).unwrap_or(&0)));
        text.push_str(&format!("Events         {}\n", counts.join(", ")));
    }
    if revenue.get("estimated_fees").and_then(Value::as_bool) == Some(true) {
        text.push_str("Fees           some are estimates until Stripe has told them\n");
    }
    for error in array(revenue, "errors") {
        text.push_str(&format!("Could not be read: {error}\n"));
    }
    text
}

/// What the comparison with Stripe found, from the run's summary.
#[must_use]
pub fn reconciliation(summary: &Value) -> String {
    let count = |name: &str| {
        let count = summary.get(name).and_then(Value::as_i64);
        count.map_or_else(|| NOT_KNOWN.to_owned(), |count| count.to_string())
    };
    let mut text = format!(
        "Reconciliation  {} objects compared, {} matched ({} bps); {} fees settled, {} healed, {} open\n",
        count("compared"),
        count("matched"),
        count("completeness_bps"),
        count("fees_settled"),
        count("healed"),
        count("open"),
    );
    for sum in array(summary, "sums") {
        let text_of = |name| sum.get(name).and_then(Value::as_str).unwrap_or("?");
        text.push_str(&format!("  {}  {}\n", text_of("currency"), text_of("line")));
    }
    for not_checked in array(summary, "not_checked") {
        text.push_str(&format!("Could not be checked: {not_checked}\n"));
    }
    text
}

const NOT_KNOWN: &str = "not known";

fn line(text: &mut String, label: &str, cells: impl IntoIterator<Item = String>) {
    text.push_str(&format!("  {label:<21}"));
    for cell in cells {
        text.push_str(&format!(" {cell:>12}"));
    }
    text.push('\n');
}

fn array<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value
        .get(name)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn amount(cents: Option<&Value>, currency: &str) -> String {
    match (cents.and_then(Value::as_i64), Currency::parse(currency)) {
        (Some(cents), Ok(currency)) => Money::new(cents, currency).format(),
        (Some(_) | None, Ok(_) | Err(_)) => NOT_KNOWN.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use crate::story::Outcomes;
    use serde_json::json;

    #[test]
    fn an_unknown_figure_is_not_a_zero() {
        let revenue = json!({"currency": "USD", "as_of": "2026-11-22T00:00:00Z",
            "overview": {"total_revenue_cents": 123_456, "monthly_revenue_cents": null},
            "errors": ["monthly_revenue_cents"]});
        let text = super::text(&revenue, &Outcomes::new());
        assert!(text.contains("1,234.56"), "{text}");
        let month = text
            .lines()
            .find(|line| line.contains("this month"))
            .expect("a line");
        assert!(month.ends_with("not known"), "{text}");
        assert!(text.contains("Could not be read"), "{text}");
        assert!(!text.contains("Events"), "{text}");
    }

    #[test]
    fn the_comparison_says_what_it_found_and_what_it_could_not_check() {
        let summary = json!({"compared": 12, "matched": 11, "completeness_bps": 9166, "fees_settled": 3,
            "healed": 1, "open": 0, "not_checked": [{"what": "refunds", "reason": "away"}],
            "sums": [{"currency": "USD", "line": "Stripe 24h: 87500 vs DB 24h: 87500"}]});
        let text = super::reconciliation(&summary);
        assert!(
            text.contains("12 objects compared, 11 matched (9166 bps)"),
            "{text}"
        );
        assert!(
            text.contains("USD  Stripe 24h: 87500 vs DB 24h: 87500"),
            "{text}"
        );
        assert!(text.contains("refunds"), "{text}");
    }

    #[test]
    fn every_currency_has_its_column_once() {
        let overview = |cents| json!({"total_revenue_cents": cents});
        let revenue = json!({"currency": "USD", "overview": overview(100), "by_currency": [
            {"currency": "JPY", "overview": overview(2980)},
            {"currency": "USD", "overview": overview(100)},
        ]});
        let text = super::text(&revenue, &Outcomes::from([("applied".to_owned(), 3)]));
        let row = |label| {
            text.lines()
                .find(|line| line.contains(label))
                .expect("a line")
        };
        let cells: Vec<&str> = row("all time").split_whitespace().rev().take(2).collect();
        assert_eq!(cells, ["¥2,980", "$1.00"]);
        assert!(
            row("Events").ends_with("3 applied, 0 duplicate, 0 ignored, 0 parked"),
            "{text}"
        );
    }
}
