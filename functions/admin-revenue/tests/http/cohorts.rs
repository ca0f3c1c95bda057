//! `GET /admin/revenue/cohorts` over the story, and the bridge of the same story.

use crate::ledger::Ledger;
use crate::story::{NOW, story};
use serde_json::{Value, json};

#[tokio::test]
async fn customers_are_followed_from_the_month_they_began_in() {
    let ledger = story().await;
    let (status, report) = ledger
        .get("/admin/revenue/cohorts?from=2025-08-01", NOW)
        .await;
    assert_eq!(status, 200, "{report}");
    assert_eq!(report["currency"], "USD");
    assert_eq!(report["errors"], json!([]));
    let month = |month: &str, customers, mrr_cents, customer_bps: Value, mrr_bps: Value| {
        json!({"month": month, "customers": customers, "mrr_cents": mrr_cents,
               "customer_retention_bps": customer_bps, "mrr_retention_bps": mrr_bps})
    };
    let nobody = |name| month(name, 0, 0, Value::Null, Value::Null);
    assert_eq!(
        report["cohorts"],
        json!([
            {"cohort": "2025-08", "customers": 0, "mrr_cents": 0,
             "months": [nobody("2025-08"), nobody("2025-09"), nobody("2025-10"), nobody("2025-11")]},
            // Alice with 5000 and Dan with 5000; in October 11000 and 2000.
            {"cohort": "2025-09", "customers": 2, "mrr_cents": 10_000, "months": [
                month("2025-09", 2, 10_000, json!(10_000), json!(10_000)),
                month("2025-10", 2, 13_000, json!(10_000), json!(13_000)),
                month("2025-11", 2, 13_000, json!(10_000), json!(13_000))]},
            // Bob with 2000; 5000 at the end of October; back with 2000.
            {"cohort": "2025-10", "customers": 1, "mrr_cents": 2_000, "months": [
                month("2025-10", 1, 5_000, json!(10_000), json!(25_000)),
                month("2025-11", 1, 2_000, json!(10_000), json!(10_000))]},
            {"cohort": "2025-11", "customers": 0, "mrr_cents": 0, "months": [nobody("2025-11")]}
        ])
    );
    // Between Bob's two subscriptions.
    let path = "/admin/revenue/cohorts?from=2025-10-01&to=2025-11-01&as_of=2025-11-14T00:00:00Z";
    let (_, then) = ledger.get(path, NOW).await;
    assert_eq!(then["cohorts"].as_array().unwrap().len(), 1);
    assert_eq!(
        then["cohorts"][0]["months"][1],
        month("2025-11", 0, 0, json!(0), json!(0))
    );
    let (_, euro) = ledger
        .get("/admin/revenue/cohorts?currency=EUR&from=2025-10-01", NOW)
        .await;
    assert_eq!(euro["cohorts"][0]["mrr_cents"], 5_000);
}

#[tokio::test]
async fn the_story_bridges_in_every_profile() {
    let ledger = story().await;
    // September: 10000 new (Alice 5000, Dan 5000), Bob in trial. October: Bob 2000 new; Alice 6000 and Bob 3000 more; Dan
    // 3000 less. November: Bob's 5000 gone, 2000 back; Dan's 2000 set to end.
    // Without discounts Alice's gold is 10000; with every discount her silver is 3000.
    for (profile, september, october, november) in [
        (
            "stripe",
            [10_000, 0, 10_000],
            [2_000, 9_000, 18_000],
            15_000,
        ),
        (
            "all_discounts",
            [10_000, 0, 10_000],
            [2_000, 6_000, 15_000],
            12_000,
        ),
        (
            "no_discounts",
            [15_000, 0, 15_000],
            [2_000, 9_000, 23_000],
            20_000,
        ),
    ] {
        let path = format!("/admin/revenue/movements?from=2025-09-01&profile={profile}");
        let (status, report) = ledger.get(&path, NOW).await;
        assert_eq!(status, 200, "{report}");
        let periods = &report["periods"];
        let told = |place: usize| {
            ["new_mrr_cents", "expansion_mrr_cents", "closing_mrr_cents"]
                .map(|name| periods[place][name].as_i64().unwrap())
        };
        assert_eq!(told(0), september, "{profile}");
        assert_eq!(told(1), october, "{profile}");
        assert_eq!(periods[1]["contraction_mrr_cents"], 3_000);
        assert_eq!(periods[2]["churned_mrr_cents"], 5_000);
        assert_eq!(periods[2]["reactivation_mrr_cents"], 2_000);
        assert_eq!(periods[2]["closing_mrr_cents"], november);
        assert_eq!(periods[0]["trial_mrr_cents"], 2_000);
        assert_eq!(periods[0]["committed_mrr_cents"], september[2] + 2_000);
        assert_eq!(periods[1]["committed_mrr_cents"], october[2]);
        assert_eq!(periods[2]["committed_mrr_cents"], november - 2_000);
    }
    let now = ledger.revenue("", NOW).await;
    assert_eq!(
        now["mrr_arr"]["mrr_cents"], 15_000,
        "what the dashboard says"
    );
}

#[tokio::test]
async fn a_parameter_that_cannot_be_read_is_named() {
    let ledger = Ledger::create().await;
    for (query, field) in [
        ("?from=x", "from"),
        ("?to=x", "to"),
        ("?from=2025-10-02&to=2025-10-01", "from"),
        ("?from=2023-01-01", "from"),
        ("?from=2025-12-01", "from"),
        ("?currency=dollar", "currency"),
        ("?as_of=2026-01-01T00:00:00Z", "as_of"),
        ("?granularity=month", "granularity"),
        ("?profile=stripe", "profile"),
    ] {
        let path = format!("/admin/revenue/cohorts{query}");
        let (status, problem) = ledger.get(&path, NOW).await;
        assert_eq!((status, &problem["field"]), (400, &json!(field)), "{query}");
    }
}

#[tokio::test]
async fn a_failed_read_is_null_and_named() {
    let ledger = Ledger::create().await;
    ledger.run("DROP TABLE mrr_movements").await;
    let (status, report) = ledger.get("/admin/revenue/cohorts", NOW).await;
    assert_eq!((status, &report["cohorts"]), (200, &Value::Null));
    assert_eq!(report["errors"][0]["field"], "cohorts");
}
