//! `GET /admin/revenue/movements` over a real ledger, and the rollup it stands on.

use crate::ledger::Ledger;
use serde_json::{Value, json};
use testing::unique;

const NOW: &str = "2025-10-20T12:00:00Z";
const UNIT: i64 = 1_000_000;

/// Three dollar customers and a euro one, in minor units:
/// * cus_a: new 1000 on 10 August, up to 1500 on 5 September, down to 1200 on 15 October.
/// * cus_b: new 800 on 20 August, gone on 10 September, back with 500 on 18 October.
/// * cus_c: new 300 on 5 October, gone on 16 October.
/// * cus_e: new €700 on 1 September.
async fn story() -> Ledger {
    let ledger = Ledger::create().await;
    for (customer, currency, at, kind, before, after) in [
        ("cus_a", "USD", "2025-08-10T10:00:00Z", "new", 0, 1_000),
        (
            "cus_a",
            "USD",
            "2025-09-05T10:00:00Z",
            "expansion",
            1_000,
            1_500,
        ),
        (
            "cus_a",
            "USD",
            "2025-10-15T10:00:00Z",
            "contraction",
            1_500,
            1_200,
        ),
        ("cus_b", "USD", "2025-08-20T10:00:00Z", "new", 0, 800),
        ("cus_b", "USD", "2025-09-10T10:00:00Z", "churn", 800, 0),
        (
            "cus_b",
            "USD",
            "2025-10-18T10:00:00Z",
            "reactivation",
            0,
            500,
        ),
        ("cus_c", "USD", "2025-10-05T10:00:00Z", "new", 0, 300),
        ("cus_c", "USD", "2025-10-16T10:00:00Z", "churn", 300, 0),
        ("cus_e", "EUR", "2025-09-01T00:00:00Z", "new", 0, 700),
    ] {
        ledger
            .movement(customer, currency, at, kind, before * UNIT, after * UNIT)
            .await;
    }
    ledger
}

async fn movements(ledger: &Ledger, query: &str, now: &str) -> Value {
    let path = format!("/admin/revenue/movements{query}");
    let (status, body) = ledger.get(&path, now).await;
    assert_eq!(status, 200, "{query}: {body}");
    body
}

/// Opening, new, expansion, contraction, churned, reactivation, closing.
fn bridge(period: &Value) -> [i64; 7] {
    [
        "opening_mrr_cents",
        "new_mrr_cents",
        "expansion_mrr_cents",
        "contraction_mrr_cents",
        "churned_mrr_cents",
        "reactivation_mrr_cents",
        "closing_mrr_cents",
    ]
    .map(|name| period[name].as_i64().expect("a figure"))
}

fn periods(report: &Value) -> &Vec<Value> {
    report["periods"].as_array().expect("periods")
}

#[tokio::test]
async fn the_months_bridge_from_one_to_the_next() {
    let ledger = story().await;
    let report = movements(&ledger, "", NOW).await;
    assert_eq!(report["profile"], "stripe");
    assert_eq!(report["currency"], "USD");
    assert_eq!(report["from"], "2024-11-01T00:00:00Z");
    assert_eq!(
        (&report["to"], &report["as_of"]),
        (&json!(NOW), &json!(NOW))
    );
    assert_eq!(report["errors"], json!([]));
    let periods = periods(&report);
    assert_eq!(periods.len(), 12);
    assert_eq!(
        (&periods[0]["period"], &periods[11]["period"]),
        (&json!("2024-11"), &json!("2025-10"))
    );
    assert_eq!(bridge(&periods[8]), [0; 7], "July");
    assert_eq!(bridge(&periods[9]), [0, 1_800, 0, 0, 0, 0, 1_800]);
    assert_eq!(bridge(&periods[10]), [1_800, 0, 500, 0, 800, 0, 1_500]);
    assert_eq!(bridge(&periods[11]), [1_500, 300, 0, 300, 300, 500, 1_700]);
    assert_eq!(
        periods[10],
        json!({
            "period": "2025-09", "opening_mrr_cents": 1_800, "new_mrr_cents": 0, "expansion_mrr_cents": 500,
            "contraction_mrr_cents": 0, "churned_mrr_cents": 800, "reactivation_mrr_cents": 0, "fx_mrr_cents": 0,
            "closing_mrr_cents": 1_500,
            // 800 ÷ 1800; (800 − 500) ÷ 1800; (1800 − 800) ÷ 1800; (1800 + 500 − 800) ÷ 1800.
            "gross_churn_bps": 4_444, "net_churn_bps": 1_667, "grr_bps": 5_556, "nrr_bps": 8_333,
            // 1 of 2 at the opening; in the 30 days from 1 September 1 left, 1 pays.
            "customer_churn_classic_bps": 5_000, "customer_churn_stripe_bps": 5_000,
            // 1500 ÷ 1; 1500 ÷ 0.5; 500 ÷ 800.
            "arpa_cents": 1_500, "ltv_cents": 3_000, "quick_ratio_bps": 6_250,
            "trial_mrr_cents": 0, "committed_mrr_cents": 1_500, "null_reasons": {}
        })
    );
    assert_eq!(
        periods[8]["null_reasons"],
        json!({
            "gross_churn_bps": "there was no MRR at the opening", "net_churn_bps": "there was no MRR at the opening",
            "grr_bps": "there was no MRR at the opening", "nrr_bps": "there was no MRR at the opening",
            "customer_churn_classic_bps": "nobody paid at the opening",
            "customer_churn_stripe_bps": "nobody paid in the 30 days", "arpa_cents": "nobody pays at the end",
            "ltv_cents": "nobody pays at the end", "quick_ratio_bps": "there was neither contraction nor churn"
        })
    );
    assert_eq!(periods[8]["arpa_cents"], Value::Null);
    assert_eq!(
        periods[9]["null_reasons"]["ltv_cents"],
        "no customer churned in the 30 days"
    );
    // October: cus_c came and went (1), cus_b is back; cus_a and cus_b pay: 1 of 3. Nobody of the opening is gone.
    assert_eq!(periods[11]["customer_churn_classic_bps"], 0);
    assert_eq!(periods[11]["customer_churn_stripe_bps"], 3_333);
    // (1500 − 300) ÷ 1500: cus_c was not there at the opening.
    assert_eq!(periods[11]["grr_bps"], 8_000);
    assert_eq!(periods[11]["gross_churn_bps"], 4_000);

    let euro = movements(&ledger, "?currency=eur&from=2025-09-01", NOW).await;
    assert_eq!(euro["currency"], "EUR");
    assert_eq!(bridge(&euro["periods"][0]), [0, 700, 0, 0, 0, 0, 700]);
    assert_eq!(bridge(&euro["periods"][1]), [700, 0, 0, 0, 0, 0, 700]);
}

#[tokio::test]
async fn days_and_weeks_add_up_to_the_same_and_the_edges_are_cut() {
    let ledger = story().await;
    // Monday, 13 October, to Sunday, 19 October, is week 42.
    let weeks = movements(
        &ledger,
        "?granularity=week&from=2025-10-01&to=2025-10-20",
        NOW,
    )
    .await;
    let names: Vec<&Value> = periods(&weeks).iter().map(|week| &week["period"]).collect();
    assert_eq!(
        names,
        [&json!("2025-W40"), &json!("2025-W41"), &json!("2025-W42")]
    );
    assert_eq!(
        bridge(&weeks["periods"][0]),
        [1_500, 300, 0, 0, 0, 0, 1_800]
    );
    assert_eq!(
        bridge(&weeks["periods"][2]),
        [1_800, 0, 0, 300, 300, 500, 1_700]
    );
    let days = movements(
        &ledger,
        "?granularity=day&from=2025-10-15&to=2025-10-17",
        NOW,
    )
    .await;
    let rows: Vec<[i64; 7]> = periods(&days).iter().map(bridge).collect();
    assert_eq!(
        rows,
        [
            [1_800, 0, 0, 300, 0, 0, 1_500],
            [1_500, 0, 0, 0, 300, 0, 1_200]
        ]
    );
    // Instants cut within a day, on either side of a movement at 10:00.
    let hours = "?granularity=day&from=2025-10-15T10:00:00Z&to=2025-10-16T10:00:00Z";
    let cut = movements(&ledger, hours, NOW).await;
    let rows: Vec<[i64; 7]> = periods(&cut).iter().map(bridge).collect();
    assert_eq!(
        rows,
        [
            [1_800, 0, 0, 300, 0, 0, 1_500],
            [1_500, 0, 0, 0, 0, 0, 1_500]
        ]
    );
    let later = "?granularity=day&from=2025-10-15T10:00:01Z&to=2025-10-16T10:00:01Z";
    let cut = movements(&ledger, later, NOW).await;
    let rows: Vec<[i64; 7]> = periods(&cut).iter().map(bridge).collect();
    assert_eq!(
        rows,
        [
            [1_500, 0, 0, 0, 0, 0, 1_500],
            [1_500, 0, 0, 0, 300, 0, 1_200]
        ]
    );
}

#[tokio::test]
async fn nothing_after_as_of_counts_and_what_happens_at_it_does() {
    let ledger = story().await;
    let report = movements(&ledger, "?from=2025-09-01&as_of=2025-10-16T10:00:00Z", NOW).await;
    assert_eq!(report["to"], "2025-10-16T10:00:00Z");
    assert_eq!(
        bridge(&report["periods"][1]),
        [1_500, 300, 0, 300, 300, 0, 1_200]
    );
    let before = movements(&ledger, "?from=2025-09-01&as_of=2025-10-16T09:59:59Z", NOW).await;
    assert_eq!(
        bridge(&before["periods"][1]),
        [1_500, 300, 0, 300, 0, 0, 1_500]
    );
    // A range that ends later than as_of ends there.
    let longer = "?from=2025-09-01&to=2026-06-01&as_of=2025-10-16T10:00:00Z";
    assert_eq!(
        movements(&ledger, longer, NOW).await["periods"],
        report["periods"]
    );
    let closing = &report["periods"][1]["closing_mrr_cents"];
    let dashboard = ledger.revenue("?as_of=2025-10-16T10:00:00Z", NOW).await;
    assert_eq!(&dashboard["mrr_arr"]["mrr_cents"], closing);
}

#[tokio::test]
async fn rounded_figures_still_add_up() {
    let ledger = Ledger::create().await;
    let third = 333_333;
    for (number, before, after) in [(1, 0, third), (2, 0, 2 * third), (3, 0, 500_000)] {
        let at = format!("2025-10-0{number}T00:00:00Z");
        ledger
            .movement(&format!("cus_{number}"), "USD", &at, "new", before, after)
            .await;
    }
    ledger
        .movement("cus_3", "USD", "2025-10-05T00:00:00Z", "churn", 500_000, 0)
        .await;
    let report = movements(
        &ledger,
        "?granularity=day&from=2025-10-01&to=2025-10-06",
        NOW,
    )
    .await;
    let rows: Vec<[i64; 7]> = periods(&report).iter().map(bridge).collect();
    assert_eq!(
        rows,
        [
            [0, 0, 0, 0, 0, 0, 0],
            [0, 1, 0, 0, 0, 0, 1],
            // 1.499999.
            [1, 0, 0, 0, 0, 0, 1],
            [1, 0, 0, 0, 0, 0, 1],
            [1, 0, 0, 0, 0, 0, 1],
        ]
    );
}

#[tokio::test]
async fn trial_and_committed_mrr_are_of_each_periods_end() {
    let ledger = Ledger::create().await;
    // sub_t: trial of 2000 from 10 August, active from 24 August, set to end on 5 September, kept on 20 September,
    // set to end again on 10 October. sub_u: trial of 900 from 15 September, ended on 2 October. Of sub_w, the later of
    // two snapshots of one second counts.
    ledger
        .run(
            "INSERT INTO subscription_versions (stripe_subscription_id, source_event_id, stripe_customer_id, currency,
                 source_created_at, source_rank, occurred_at, status, mrr_microcents, potential_mrr_microcents,
                 set_to_cancel, is_counted, overruled)
             SELECT sub, sub || at || rank, 'cus_' || sub, 'USD', at::timestamptz, rank, at::timestamptz, status,
                    CASE WHEN status = 'active' THEN worth ELSE 0 END * 1000000::bigint, worth * 1000000::bigint,
                    cancels, status = 'active', overruled
             FROM (VALUES
                 ('sub_t', '2025-08-10Z', 1, 'trialing', 2000, false, false),
                 ('sub_t', '2025-08-24Z', 1, 'active', 2000, false, false),
                 ('sub_t', '2025-09-05Z', 1, 'active', 2000, true, false),
                 ('sub_t', '2025-09-20Z', 1, 'active', 2000, false, false),
                 ('sub_t', '2025-10-10Z', 1, 'active', 2000, true, false),
                 ('sub_u', '2025-09-15Z', 1, 'trialing', 900, true, false),
                 ('sub_u', '2025-10-02Z', 1, 'canceled', 0, false, false),
                 ('sub_w', '2025-09-28Z', 1, 'trialing', 5000, false, false),
                 ('sub_w', '2025-09-28Z', 2, 'active', 5000, false, false),
                 ('sub_x', '2025-09-28Z', 1, 'trialing', 7000, false, true),
                 ('sub_y', '2025-09-28Z', 1, 'past_due', 400, true, false)
             ) AS versions (sub, at, rank, status, worth, cancels, overruled)",
        )
        .await;
    let report = movements(
        &ledger,
        "?granularity=week&from=2025-08-11&to=2025-10-20",
        NOW,
    )
    .await;
    let pending: Vec<(i64, i64)> = periods(&report)
        .iter()
        .map(|week| {
            let figure = |name: &str| week[name].as_i64().expect("a figure");
            // Nothing moves here: what is committed is trial less what is set to end.
            (figure("trial_mrr_cents"), figure("committed_mrr_cents"))
        })
        .collect();
    assert_eq!(
        pending,
        [
            (2_000, 2_000), // up to 18 August
            (0, 0),         // 25 August: it pays since the 24th
            (0, 0),
            (0, -2_000), // 8 September: set to end
            (0, -2_000),
            (900, 900 - 900), // 22 September: sub_t stays, sub_u is in trial and set to end
            (900, 900 - 900), // 29 September: sub_w is not in trial; sub_y counts nothing
            (0, 0),
            (0, -2_000), // 13 October
            (0, -2_000),
        ]
    );
}

#[tokio::test]
async fn profiles_treat_coupons_their_own_way() {
    let ledger = Ledger::create().await;
    // A yearly price of 12000 with half off once: 1000, with every coupon 500. From before profiles were kept: 300.
    ledger
        .run(
            "INSERT INTO subscription_versions (stripe_subscription_id, source_event_id, stripe_customer_id, currency,
                 source_created_at, occurred_at, status, mrr_microcents, potential_mrr_microcents, is_counted,
                 all_discounts_microcents, no_discounts_microcents)
             VALUES ('sub_1', 'evt_1', 'cus_1', 'USD', '2025-08-10Z', '2025-08-10Z', 'active', 1000000000, 1000000000,
                     true, 500000000, 1500000000),
                    ('sub_1', 'evt_2', 'cus_1', 'USD', '2025-09-10Z', '2025-09-10Z', 'active', 1000000000, 1000000000,
                     true, 1000000000, 1500000000),
                    ('sub_2', 'evt_3', 'cus_2', 'USD', '2025-09-11Z', '2025-09-11Z', 'trialing', 0, 200000000,
                     false, 100000000, 250000000),
                    ('sub_3', '', 'cus_3', 'USD', '2025-08-01Z', '2025-08-01Z', 'active', 300000000, 300000000,
                     NULL, NULL, NULL),
                    ('sub_e', 'evt_4', 'cus_1', 'EUR', '2025-08-10Z', '2025-08-10Z', 'active', 70000000, 70000000,
                     true, 60000000, 80000000)",
        )
        .await;
    ledger
        .movement(
            "cus_1",
            "USD",
            "2025-08-10T00:00:00Z",
            "new",
            0,
            1_000 * UNIT,
        )
        .await;
    ledger
        .movement("cus_3", "USD", "2025-08-01T00:00:00Z", "new", 0, 300 * UNIT)
        .await;
    for (profile, named, august, september, trial) in [
        (
            "stripe",
            "stripe",
            [0, 1_300, 0, 0, 0, 0, 1_300],
            [1_300, 0, 0, 0, 0, 0, 1_300],
            200,
        ),
        (
            "at_period_end",
            "stripe",
            [0, 1_300, 0, 0, 0, 0, 1_300],
            [1_300, 0, 0, 0, 0, 0, 1_300],
            200,
        ),
        (
            "all_discounts",
            "all_discounts",
            [0, 800, 0, 0, 0, 0, 800],
            [800, 0, 500, 0, 0, 0, 1_300],
            100,
        ),
        (
            "no_discounts",
            "no_discounts",
            [0, 1_800, 0, 0, 0, 0, 1_800],
            [1_800, 0, 0, 0, 0, 0, 1_800],
            250,
        ),
    ] {
        let report = movements(&ledger, &format!("?profile={profile}&from=2025-08-01"), NOW).await;
        assert_eq!(report["profile"], named);
        assert_eq!(bridge(&report["periods"][0]), august, "{profile}");
        assert_eq!(bridge(&report["periods"][1]), september, "{profile}");
        assert_eq!(report["periods"][1]["trial_mrr_cents"], trial, "{profile}");
        // What stands at the opening of a later range is the same.
        let later = movements(&ledger, &format!("?profile={profile}&from=2025-09-01"), NOW).await;
        assert_eq!(later["periods"][0], report["periods"][1], "{profile}");
    }
}

#[tokio::test]
async fn a_parameter_that_cannot_be_read_is_named() {
    let ledger = Ledger::create().await;
    for (query, field) in [
        ("?granularity=year", "granularity"),
        ("?granularity=", "granularity"),
        ("?profile=strip", "profile"),
        ("?currency=dollars", "currency"),
        ("?as_of=2025-10-20T12:00:01Z", "as_of"),
        ("?as_of=2025-10-20", "as_of"),
        ("?from=october", "from"),
        ("?from=2025-13-01", "from"),
        ("?to=2025-10-32", "to"),
        ("?to=", "to"),
        ("?from=2025-10-02&to=2025-10-01", "from"),
        ("?from=2025-10-01&to=2025-10-01", "from"),
        ("?from=2025-10-21", "from"),
        ("?from=2025-10-02&as_of=2025-10-01T00:00:00Z", "from"),
        ("?from=2023-10-19", "from"),
        ("?from=2023-09-01&to=2025-09-02", "from"),
        ("?granularity=day&from=2024-10-18", "from"),
        ("?granularity=day&from=2023-10-18&to=2024-10-19", "from"),
        ("?limit=5", "limit"),
        ("?currency=USD&currency=EUR", "currency"),
    ] {
        let path = format!("/admin/revenue/movements{query}");
        let (status, problem) = ledger.get(&path, NOW).await;
        assert_eq!(
            (status, &problem["field"]),
            (400, &json!(field)),
            "{query}: {problem}"
        );
    }
    for (query, count) in [
        ("?from=2023-10-20T12:00:00Z", 25),
        ("?from=2023-09-01&to=2025-09-01", 24),
        ("?granularity=day&from=2024-10-19T12:00:00Z", 367),
        ("?granularity=day", 354),
        // 104 weeks, and the Monday that now is in.
        ("?granularity=week&from=2023-10-23&to=2025-10-23", 105),
    ] {
        let report = movements(&ledger, query, NOW).await;
        assert_eq!(periods(&report).len(), count, "{query}");
    }
}

#[tokio::test]
async fn a_failed_read_is_null_and_named() {
    for (broken, nulls) in [
        ("DROP TABLE mrr_daily CASCADE", vec!["periods"]),
        (
            "ALTER TABLE mrr_movements RENAME TO elsewhere",
            vec!["periods"],
        ),
        (
            "ALTER TABLE subscription_versions RENAME TO elsewhere",
            vec!["trial_mrr_cents", "committed_mrr_cents"],
        ),
    ] {
        let ledger = story().await;
        ledger.run(broken).await;
        let report = movements(&ledger, "", NOW).await;
        let named: Vec<&str> = report["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["field"].as_str().unwrap())
            .collect();
        assert_eq!(named, nulls, "{broken}");
        if nulls == ["periods"] {
            assert_eq!(report["periods"], Value::Null);
            continue;
        }
        let october = &report["periods"][11];
        assert_eq!(october["closing_mrr_cents"], 1_700);
        for field in nulls {
            assert_eq!(october[field], Value::Null);
            assert_eq!(october["null_reasons"][field], "it could not be read");
        }
    }
}

/// Days where the rollup is not what the movements add up to.
const DIFFERENT_DAYS: &str = "
    SELECT count(*) FROM mrr_daily AS kept FULL JOIN (
        SELECT (occurred_at AT TIME ZONE 'UTC')::date AS day, currency, sum(delta_microcents) AS delta_microcents,
               count(*) FILTER (WHERE before_microcents = 0) AS customers_gained,
               count(*) FILTER (WHERE after_microcents = 0) AS customers_lost, count(*) AS movements,
               coalesce(sum(before_microcents) FILTER (WHERE after_microcents = 0), 0)::bigint AS churned_microcents
        FROM mrr_movements GROUP BY 1, 2
    ) AS counted USING (day, currency)
    WHERE (kept.delta_microcents, kept.customers_gained, kept.customers_lost, kept.movements, kept.churned_microcents)
        IS DISTINCT FROM (counted.delta_microcents::bigint, counted.customers_gained, counted.customers_lost,
                          counted.movements, counted.churned_microcents)";

#[tokio::test]
async fn the_rollup_is_what_the_movements_add_up_to_after_any_rewrite() {
    let ledger = Ledger::create().await;
    let seed = unique("seed");
    // Every statement that can change the table, at random places of a small space of customers, days and currencies.
    let insert = |round: usize| {
        format!(
            "INSERT INTO mrr_movements AS stored (occurred_at, stripe_customer_id, kind, currency, delta_microcents,
                 before_microcents, after_microcents, cause_event_id)
             SELECT occurred_at, customer, kind, currency, CASE WHEN kind = 'churn' THEN -size ELSE size END,
                    CASE kind WHEN 'churn' THEN size WHEN 'expansion' THEN 5 ELSE 0 END,
                    CASE kind WHEN 'churn' THEN 0 WHEN 'expansion' THEN size + 5 ELSE size END, 'evt_{round}'
             FROM (SELECT DISTINCT ON (customer, currency, occurred_at)
                       'cus_' || abs(hashtext('{seed} c {round} ' || n)) % 4 AS customer,
                       '2025-10-01 00:00+00'::timestamptz
                           + abs(hashtext('{seed} d {round} ' || n)) % 12 * interval '6 hours' AS occurred_at,
                       (ARRAY['USD', 'EUR'])[1 + abs(hashtext('{seed} e {round} ' || n)) % 2] AS currency,
                       (ARRAY['new', 'expansion', 'churn', 'reactivation'])
                           [1 + abs(hashtext('{seed} k {round} ' || n)) % 4] AS kind,
                       1 + abs(hashtext('{seed} s {round} ' || n)) % 1000 AS size
                   FROM generate_series(1, 20) AS n) AS random
             ON CONFLICT (stripe_customer_id, currency, occurred_at) DO UPDATE SET
                 kind = excluded.kind, delta_microcents = excluded.delta_microcents,
                 before_microcents = excluded.before_microcents, after_microcents = excluded.after_microcents"
        )
    };
    for round in 0..40 {
        ledger.run(&insert(round)).await;
        match round % 4 {
            0 => {
                let gone = format!(
                    "DELETE FROM mrr_movements WHERE abs(hashtext('{seed} {round} ' || id)) % 3 > 0"
                );
                ledger.run(&gone).await;
            }
            1 => {
                let moved = format!(
                    "UPDATE mrr_movements SET occurred_at = occurred_at + interval '1 day' + id * interval '1 microsecond'
                     WHERE abs(hashtext('{seed} {round} ' || id)) % 2 = 0"
                );
                ledger.run(&moved).await;
            }
            2 => {
                ledger
                    .run("DELETE FROM mrr_movements WHERE occurred_at < '2025-10-02Z'")
                    .await
            }
            _ => {}
        }
        let row = ledger.client.query_one(DIFFERENT_DAYS, &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 0, "{seed}, round {round}");
    }
    ledger.run("DELETE FROM mrr_movements").await;
    let row = ledger
        .client
        .query_one("SELECT count(*) FROM mrr_daily", &[])
        .await
        .unwrap();
    assert_eq!(
        row.get::<_, i64>(0),
        0,
        "a day without movements has no row"
    );
    ledger.run(&insert(0)).await;
    ledger.run("TRUNCATE mrr_movements").await;
    let row = ledger
        .client
        .query_one("SELECT count(*) FROM mrr_daily", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, i64>(0), 0);
}
