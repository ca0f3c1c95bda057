//! `GET /admin/revenue` over a real ledger.

use crate::ledger::{Ledger, admin, app, bearer, body, handle, request};
use jiff::Timestamp;
use serde_json::{Value, json};

const NOW: &str = "2025-10-20T12:00:00Z";

#[tokio::test]
async fn an_empty_ledger_has_twelve_months_of_nothing_and_no_errors() {
    let ledger = Ledger::create().await;
    let report = ledger.revenue("", NOW).await;
    assert_eq!(report["currency"], "USD");
    assert_eq!(report["as_of"], NOW);
    assert_eq!(
        report["overview"],
        json!({"total_revenue_cents": 0, "monthly_revenue_cents": 0, "stripe_fees_cents": 0, "refunds_cents": 0,
               "disputes_cents": 0, "net_monthly_revenue_cents": 0, "provisional": []})
    );
    assert_eq!(report["mrr_arr"]["mrr_cents"], 0);
    assert_eq!(
        report["churn"]["customer_churn_bps"],
        Value::Null,
        "nobody could leave"
    );
    assert_eq!(report["churn"]["churned_customers"], 0);
    assert_eq!(
        report["subscriptions"],
        json!({"active": 0, "trialing": 0, "past_due": 0})
    );
    assert_eq!(report["by_currency"], json!([]));
    assert_eq!(report["estimated_fees"], false);
    assert_eq!(report["errors"], json!([]));
    let months = report["monthly_breakdown"].as_array().unwrap();
    let names: Vec<&str> = months
        .iter()
        .map(|month| month["month"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), 12);
    assert_eq!(
        (names[0], names[9], names[10], names[11]),
        ("2025-10", "2025-01", "2024-12", "2024-11")
    );
    assert!(months.iter().all(|month| month["revenue_cents"] == 0));
}

#[tokio::test]
async fn the_figures_are_those_of_the_dashboards_contract() {
    let ledger = Ledger::create().await;
    ledger
        .days(&[
            ("2024-03-05", "USD", 1_000_000, 29_000, 0, 0),
            ("2025-09-30", "USD", 147_067, 4_000, 0, 1_500),
            ("2025-10-01", "USD", 80_000, 2_320, 0, 0),
            ("2025-10-19", "USD", 7_500, 217, 500, 0),
            ("2025-10-20", "USD", 0, 0, 0, -1_500),
        ])
        .await;
    let report = ledger.revenue("", NOW).await;
    assert_eq!(
        report["overview"],
        json!({"total_revenue_cents": 1_234_567, "monthly_revenue_cents": 87_500, "stripe_fees_cents": 2_537,
               "refunds_cents": 500, "disputes_cents": -1_500, "net_monthly_revenue_cents": 85_963, "provisional": []})
    );
    let months = &report["monthly_breakdown"];
    assert_eq!(
        months[0],
        json!({"month": "2025-10", "revenue_cents": 87_500, "revenue_dollars": 875.00, "fees_cents": 2_537,
               "refunds_cents": 500, "disputes_cents": -1_500, "net_cents": 85_963, "provisional": []})
    );
    assert_eq!(
        (&months[1]["revenue_cents"], &months[1]["net_cents"]),
        (&json!(147_067), &json!(141_567))
    );
    let shown: i64 = (0..12)
        .map(|month| months[month]["revenue_cents"].as_i64().unwrap())
        .sum();
    assert_eq!(
        shown, 234_567,
        "what is older than twelve months is in the total alone"
    );
}

#[tokio::test]
async fn dollars_are_written_digit_by_digit() {
    let ledger = Ledger::create().await;
    ledger
        .days(&[
            ("2025-10-01", "USD", 9_007_199_254_740_993, 0, 0, 0),
            ("2025-10-01", "JPY", 2_999, 0, 0, 0),
            ("2025-10-01", "KWD", 2_990, 0, 0, 0),
        ])
        .await;
    let now: Timestamp = NOW.parse().unwrap();
    for (currency, printed) in [
        ("USD", "\"revenue_dollars\":90071992547409.93,"),
        ("JPY", "\"revenue_dollars\":2999,"),
        ("KWD", "\"revenue_dollars\":2.990,"),
    ] {
        let path = format!("/admin/revenue?currency={currency}");
        let response = handle(&ledger.app, request("GET", &path, Some(&admin(now))), now).await;
        let text = std::str::from_utf8(response.body()).unwrap();
        assert!(text.contains(printed), "{currency}: {text}");
    }
}

#[tokio::test]
async fn mrr_is_the_exact_sum_rounded_once_and_arr_twelve_times_it() {
    let ledger = Ledger::create().await;
    // 1000/day, 2000/week, 6000/2 months, 12000/year.
    for (customer, microcents) in [
        ("cus_a", 30_416_666_667),
        ("cus_b", 8_666_666_667),
        ("cus_c", 3_000_000_000),
        ("cus_d", 1_000_000_000),
    ] {
        ledger
            .subscription(customer, "USD", microcents, "2025-01-01T00:00:00Z")
            .await;
    }
    ledger
        .subscription("cus_t", "USD", 0, "2025-10-01T00:00:00Z")
        .await;
    let report = ledger.revenue("", NOW).await;
    let mrr = &report["mrr_arr"];
    assert_eq!(
        (&mrr["mrr_cents"], &mrr["arr_cents"]),
        (&json!(43_083), &json!(517_000))
    );
    assert_eq!(
        (&mrr["mrr_dollars"], &mrr["arr_dollars"]),
        (&json!(430.83), &json!(5170.00))
    );
    assert!(mrr["definition"].as_str().unwrap().contains("past_due"));
    assert_eq!(
        report["subscriptions"],
        json!({"active": 4, "trialing": 1, "past_due": 0})
    );
}

#[tokio::test]
async fn churn_is_of_the_last_thirty_days_now_and_then() {
    let ledger = Ledger::create().await;
    // 130 customers: 100 paid all along, 30 joined within the window; 10 of the first left within it.
    ledger
        .run(
            "INSERT INTO mrr_movements (occurred_at, stripe_customer_id, kind, currency, delta_microcents,
                 before_microcents, after_microcents, cause_event_id)
             SELECT CASE WHEN n <= 100 THEN '2025-06-01Z'::timestamptz ELSE '2025-10-02Z'::timestamptz END,
                    'cus_' || n, 'new', 'USD', 1000000000, 0, 1000000000, 'evt'
             FROM generate_series(1, 130) AS n;
             INSERT INTO mrr_movements (occurred_at, stripe_customer_id, kind, currency, delta_microcents,
                 before_microcents, after_microcents, cause_event_id)
             SELECT '2025-10-10Z', 'cus_' || n, 'churn', 'USD', -1000000000, 1000000000, 0, 'evt'
             FROM generate_series(1, 10) AS n;
             INSERT INTO subscriptions (stripe_subscription_id, stripe_customer_id, status, plan_name, currency,
                 mrr_microcents)
             SELECT 'sub_' || n, 'cus_' || n, CASE WHEN n <= 10 THEN 'canceled' ELSE 'active' END, 'unknown', 'USD',
                    CASE WHEN n <= 10 THEN 0 ELSE 1000000000 END
             FROM generate_series(1, 130) AS n",
        )
        .await;
    let expected = (json!(769), json!(10), json!(10_000));
    for query in ["", "?as_of=2025-10-20T12:00:00Z"] {
        let report = ledger.revenue(query, NOW).await;
        let churn = &report["churn"];
        let figures = (
            churn["customer_churn_bps"].clone(),
            churn["churned_customers"].clone(),
            churn["churned_mrr_cents"].clone(),
        );
        assert_eq!(figures, expected, "10 of 130, {query}");
        assert!(
            churn["definition"]
                .as_str()
                .unwrap()
                .contains("30 days before")
        );
    }
    // Somebody who left and came back within the window has not left.
    ledger
        .movement(
            "cus_1",
            "USD",
            "2025-10-15T00:00:00Z",
            "reactivation",
            0,
            1_000_000_000,
        )
        .await;
    ledger
        .run("UPDATE subscriptions SET status = 'active', mrr_microcents = 1000000000 WHERE stripe_customer_id = 'cus_1'")
        .await;
    for query in ["", "?as_of=2025-10-20T12:00:00Z"] {
        let churn = &ledger.revenue(query, NOW).await["churn"];
        assert_eq!(
            (&churn["churned_customers"], &churn["customer_churn_bps"]),
            (&json!(9), &json!(692))
        );
    }
    let churn = &ledger.revenue("", "2025-11-30T00:00:00Z").await["churn"];
    assert_eq!(
        churn["customer_churn_bps"], 0,
        "after the window it is history"
    );
}

#[tokio::test]
async fn currencies_stay_apart_without_a_rate() {
    let ledger = Ledger::create().await;
    ledger
        .days(&[
            ("2025-10-01", "USD", 1_000, 59, 0, 0),
            ("2025-10-01", "EUR", 5_000, 175, 100, 0),
        ])
        .await;
    ledger
        .subscription("cus_e", "EUR", 4_900_000_000, "2025-09-01T00:00:00Z")
        .await;
    ledger
        .subscription("cus_u", "USD", 1_000_000_000, "2025-09-01T00:00:00Z")
        .await;
    let report = ledger.revenue("", NOW).await;
    assert_eq!(report["overview"]["total_revenue_cents"], 1_000);
    assert_eq!(report["mrr_arr"]["mrr_cents"], 1_000);
    assert_eq!(report["unconverted_currencies"], json!(["EUR"]));
    let euro = &report["by_currency"][0];
    assert_eq!(euro["currency"], "EUR");
    assert_eq!(
        euro["overview"],
        json!({"total_revenue_cents": 5_000, "monthly_revenue_cents": 5_000, "stripe_fees_cents": 175,
               "refunds_cents": 100, "disputes_cents": 0, "net_monthly_revenue_cents": 4_725, "provisional": []})
    );
    assert_eq!(
        (
            &euro["mrr_arr"]["mrr_cents"],
            &euro["mrr_arr"]["mrr_dollars"]
        ),
        (&json!(4_900), &json!(49.00))
    );
    assert_eq!(report["by_currency"][1]["currency"], "USD");
    let in_euro = ledger.revenue("?currency=eur", NOW).await;
    assert_eq!(in_euro["currency"], "EUR");
    assert_eq!(in_euro["overview"], euro["overview"]);
    assert_eq!(in_euro["mrr_arr"]["arr_cents"], 58_800);
    let nothing = ledger.revenue("?currency=CHF", NOW).await;
    assert_eq!(nothing["overview"]["total_revenue_cents"], 0);
}

#[tokio::test]
async fn other_currencies_are_added_at_the_rate_of_their_day() {
    let ledger = Ledger::with(&[("REPORTING_CURRENCY", "usd")]).await;
    ledger
        .days(&[
            ("2025-09-10", "EUR", 10_000, 0, 0, 0),
            ("2025-10-10", "EUR", 10_001, 301, 0, 0),
            ("2025-10-11", "JPY", 1_000, 0, 0, 0),
            ("2025-10-11", "GBP", 700, 0, 0, 0),
            ("2025-10-12", "USD", 500, 0, 0, 0),
        ])
        .await;
    ledger
        .subscription("cus_e", "EUR", 1_000_000_000, "2025-09-01T00:00:00Z")
        .await;
    ledger
        .run(
            "INSERT INTO fx_rates (day, currency, reporting_currency, rate) VALUES
                 ('2025-09-01', 'EUR', 'USD', '1.10'), ('2025-10-10', 'EUR', 'USD', '1.2'),
                 ('2025-10-15', 'EUR', 'USD', '1.25'), ('2025-10-21', 'EUR', 'USD', '9'),
                 ('2025-10-01', 'JPY', 'USD', '0.0066'), ('2025-10-12', 'GBP', 'USD', '1.3')",
        )
        .await;
    let report = ledger.revenue("", NOW).await;
    assert_eq!(
        report["unconverted_currencies"],
        json!(["GBP"]),
        "its first rate is younger than its cash"
    );
    // 100.00 × 1.10 + 100.01 × 1.2 + ¥1,000 × 0.0066 + 5.00 = 110.00 + 120.012 + 6.60 + 5.00.
    assert_eq!(report["overview"]["total_revenue_cents"], 24_161);
    assert_eq!(
        report["overview"]["monthly_revenue_cents"], 13_161,
        "120.012 + 6.60 + 5.00"
    );
    assert_eq!(
        report["overview"]["stripe_fees_cents"], 361,
        "3.01 × 1.2 = 3.612"
    );
    assert_eq!(report["monthly_breakdown"][1]["revenue_cents"], 11_000);
    assert_eq!(
        report["mrr_arr"]["mrr_cents"], 1_250,
        "at the rate of the day of the report"
    );
    let originals: Vec<(&Value, &Value)> = report["by_currency"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (&row["currency"], &row["overview"]["total_revenue_cents"]))
        .collect();
    assert_eq!(
        originals,
        [
            (&json!("EUR"), &json!(20_001)),
            (&json!("GBP"), &json!(700)),
            (&json!("JPY"), &json!(1_000)),
            (&json!("USD"), &json!(500))
        ]
    );
}

#[tokio::test]
async fn a_past_instant_is_answered_as_it_was_to_the_second() {
    let ledger = Ledger::create().await;
    ledger
        .days(&[
            ("2025-09-30", "USD", 1_000, 30, 0, 0),
            ("2025-10-05", "USD", 6_000, 180, 900, 2_000),
            ("2025-10-06", "USD", 9_999, 0, 0, 0),
        ])
        .await;
    // The 5th, one entry at a time.
    ledger
        .run(
            "INSERT INTO revenue_entries (payment_key, kind, source_id, day, occurred_at, currency, amount_cents) VALUES
                 ('pi_1', 'gross', 'pi_1', '2025-10-05', '2025-10-05T08:00:00Z', 'USD', 4000),
                 ('pi_1', 'fee', 'pi_1', '2025-10-05', '2025-10-05T08:00:00Z', 'USD', 120),
                 ('pi_2', 'gross', 'pi_2', '2025-10-05', '2025-10-05T16:00:00Z', 'USD', 2000),
                 ('pi_2', 'fee', 'pi_2', '2025-10-05', '2025-10-05T16:00:00Z', 'USD', 60),
                 ('pi_1', 'refund', 're_1', '2025-10-05', '2025-10-05T10:00:00Z', 'USD', 400),
                 ('pi_1', 'refund', 'ch_1@1759665600', '2025-10-05', '2025-10-05T12:00:00Z', 'USD', 500),
                 ('pi_2', 'dispute', 'dp_1', '2025-10-05', '2025-10-05T20:00:00Z', 'USD', 2000)",
        )
        .await;
    ledger
        .subscription("cus_a", "USD", 1_000_000_000, "2025-09-01T00:00:00Z")
        .await;
    ledger
        .subscription("cus_b", "USD", 3_000_000_000, "2025-10-05T12:00:00Z")
        .await;
    ledger
        .run(
            "INSERT INTO subscription_versions (stripe_subscription_id, source_event_id, stripe_customer_id, currency,
                 source_created_at, occurred_at, status, mrr_microcents)
             VALUES ('sub_cus_a', 'evt_end', 'cus_a', 'USD', '2025-10-08T00:00:00Z', '2025-10-08T00:00:00Z', 'canceled', 0);
             UPDATE subscriptions SET status = 'canceled', mrr_microcents = 0 WHERE stripe_customer_id = 'cus_a'",
        )
        .await;
    ledger
        .movement(
            "cus_a",
            "USD",
            "2025-10-08T00:00:00Z",
            "churn",
            1_000_000_000,
            0,
        )
        .await;

    for (as_of, total, month, fees, refunds, disputes, mrr, active) in [
        ("2025-09-30T23:59:59Z", 0, 0, 0, 0, 0, 1_000, 1),
        ("2025-10-01T00:00:00Z", 1_000, 0, 0, 0, 0, 1_000, 1),
        ("2025-10-05T07:59:59Z", 1_000, 0, 0, 0, 0, 1_000, 1),
        ("2025-10-05T08:00:00Z", 5_000, 4_000, 120, 0, 0, 1_000, 1),
        ("2025-10-05T12:00:00Z", 5_000, 4_000, 120, 900, 0, 4_000, 2),
        (
            "2025-10-05T23:59:59Z",
            7_000,
            6_000,
            180,
            900,
            2_000,
            4_000,
            2,
        ),
        (
            "2025-10-06T00:00:00Z",
            7_000,
            6_000,
            180,
            900,
            2_000,
            4_000,
            2,
        ),
        (
            "2025-10-08T00:00:00Z",
            16_999,
            15_999,
            180,
            900,
            2_000,
            3_000,
            1,
        ),
    ] {
        let report = ledger.revenue(&format!("?as_of={as_of}"), NOW).await;
        assert_eq!(report["as_of"], as_of);
        assert_eq!(report["errors"], json!([]));
        let overview = &report["overview"];
        let figures = [
            "total_revenue_cents",
            "monthly_revenue_cents",
            "stripe_fees_cents",
            "refunds_cents",
            "disputes_cents",
        ]
        .map(|field| overview[field].as_i64().unwrap());
        assert_eq!(figures, [total, month, fees, refunds, disputes], "{as_of}");
        assert_eq!(report["mrr_arr"]["mrr_cents"], mrr, "{as_of}");
        assert_eq!(report["subscriptions"]["active"], active, "{as_of}");
        assert_eq!(report["monthly_breakdown"][0]["month"], as_of[..7]);
    }
    // The present and the same instant asked for as a past one agree.
    let now = ledger.revenue("", NOW).await;
    let then = ledger.revenue(&format!("?as_of={NOW}"), NOW).await;
    assert_eq!(now, then);
}

#[tokio::test]
async fn the_rate_of_a_past_day_is_the_one_it_had() {
    let ledger = Ledger::create().await;
    ledger.days(&[("2025-10-05", "EUR", 1_000, 0, 0, 0)]).await;
    ledger
        .run(
            "INSERT INTO revenue_entries (payment_key, kind, source_id, day, occurred_at, currency, amount_cents)
                 VALUES ('pi_1', 'gross', 'pi_1', '2025-10-05', '2025-10-05T08:00:00Z', 'EUR', 1000);
             INSERT INTO fx_rates (day, currency, reporting_currency, rate)
                 VALUES ('2025-10-01', 'EUR', 'USD', '1.1'), ('2025-10-06', 'EUR', 'USD', '1.2')",
        )
        .await;
    for query in [
        "?as_of=2025-10-05T09:00:00Z",
        "?as_of=2025-10-06T09:00:00Z",
        "",
    ] {
        let report = ledger.revenue(query, NOW).await;
        assert_eq!(report["overview"]["total_revenue_cents"], 1_100, "{query}");
    }
}

#[tokio::test]
async fn an_estimated_fee_is_admitted_while_its_month_is_shown() {
    let ledger = Ledger::create().await;
    ledger.days(&[("2024-12-31", "EUR", 1_000, 59, 0, 0)]).await;
    ledger
        .run("UPDATE revenue_daily SET estimated_fees = 1")
        .await;
    assert_eq!(ledger.revenue("", NOW).await["estimated_fees"], true);
    let later = ledger.revenue("", "2026-01-01T00:00:00Z").await;
    assert_eq!(later["estimated_fees"], false);
}

#[tokio::test]
async fn a_failed_read_is_null_and_named_and_leaves_the_others() {
    let fields = [
        "overview",
        "monthly_breakdown",
        "mrr_arr",
        "churn",
        "subscriptions",
        "by_currency",
        "unconverted_currencies",
        "estimated_fees",
    ];
    for (table, query, expected) in [
        (
            "revenue_daily",
            "",
            vec!["overview", "monthly_breakdown", "estimated_fees"],
        ),
        ("subscriptions", "", vec![]),
        ("mrr_daily", "", vec!["mrr_arr", "churn"]),
        ("mrr_movements", "", vec!["mrr_arr", "churn"]),
        ("subscriptions_daily", "", vec!["subscriptions"]),
        ("subscription_status_changes", "", vec!["subscriptions"]),
        (
            "revenue_entries",
            "?as_of=2025-10-20T00:00:00Z",
            vec!["overview", "monthly_breakdown", "estimated_fees"],
        ),
        (
            "fx_rates",
            "",
            vec![
                "overview",
                "monthly_breakdown",
                "mrr_arr",
                "unconverted_currencies",
            ],
        ),
        ("payment_history", "", vec![]),
    ] {
        let ledger = Ledger::create().await;
        ledger
            .days(&[
                ("2025-10-01", "USD", 1_000, 0, 0, 0),
                ("2025-10-01", "EUR", 500, 0, 0, 0),
            ])
            .await;
        ledger
            .subscription("cus_a", "USD", 1_000_000_000, "2025-09-01T00:00:00Z")
            .await;
        ledger
            .run(&format!("ALTER TABLE {table} RENAME TO elsewhere"))
            .await;
        let report = ledger.revenue(query, NOW).await;
        let nulls: Vec<&str> = fields
            .into_iter()
            .filter(|field| report[field].is_null())
            .collect();
        assert_eq!(nulls, expected, "{table}: {report}");
        let named: Vec<&str> = report["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["field"].as_str().unwrap())
            .collect();
        assert_eq!(named, expected, "{table}: {report}");
        assert!(
            !report.to_string().contains("elsewhere") && !report.to_string().contains("relation"),
            "nothing of the database's own words"
        );
        if table == "revenue_daily" {
            assert_eq!(
                report["by_currency"][0]["overview"],
                Value::Null,
                "{report}"
            );
            assert_eq!(report["by_currency"][0]["mrr_arr"]["mrr_cents"], 1_000);
        }
    }
}

#[tokio::test]
async fn a_sum_out_of_range_is_null_and_never_another_number() {
    let ledger = Ledger::create().await;
    ledger
        .days(&[
            ("2025-10-01", "USD", i64::MAX, 0, 0, 0),
            ("2025-10-02", "USD", 1, 0, 0, 0),
        ])
        .await;
    let report = ledger.revenue("", NOW).await;
    assert_eq!(report["overview"], Value::Null);
    assert_eq!(report["errors"][0]["field"], "overview");
}

#[tokio::test]
async fn a_database_that_is_away_is_a_503_without_details() {
    let app = app("postgres://billing:hush@127.0.0.1:1/billing", &[]).await;
    let now: Timestamp = NOW.parse().unwrap();
    let response = handle(
        &app,
        request("GET", "/admin/revenue", Some(&admin(now))),
        now,
    )
    .await;
    assert_eq!(response.status(), 503);
    let problem = body(&response);
    assert_eq!(problem["code"], "unavailable");
    assert_eq!(problem.get("detail"), None);
}

#[tokio::test]
async fn a_parameter_that_is_unknown_or_malformed_is_a_400_that_names_it() {
    let ledger = Ledger::create().await;
    for (query, field) in [
        ("?curency=USD", "curency"),
        ("?from=2025-01-01", "from"),
        ("?currency=dollars", "currency"),
        ("?currency=", "currency"),
        ("?currency=USD&currency=EUR", "currency"),
        ("?as_of=yesterday", "as_of"),
        ("?as_of=2025-10-20", "as_of"),
        ("?as_of=2025-10-20T12:00:01Z", "as_of"),
        ("?as_of=%FF", "as_of"),
    ] {
        let (status, problem) = ledger.get(&format!("/admin/revenue{query}"), NOW).await;
        assert_eq!(status, 400, "{query}");
        assert_eq!(problem["field"], field, "{query}");
        assert!(problem["detail"].is_string() && problem["code"].is_string());
    }
    let report = ledger
        .revenue("?as_of=2025-10-20T14:00:00%2B02:00", NOW)
        .await;
    assert_eq!(report["as_of"], NOW, "any offset is an instant");
}

#[tokio::test]
async fn only_an_admins_valid_token_opens_the_figures() {
    let ledger = Ledger::create().await;
    let now: Timestamp = NOW.parse().unwrap();
    let exp = now.as_second() + 1;
    let none = "Bearer eyJhbGciOiJub25lIn0.eyJyb2xlIjoiYWRtaW4iLCJleHAiOjk5OTk5OTk5OTl9.";
    for (authorization, expected) in [
        (None, 401),
        (Some("Bearer nonsense".to_owned()), 401),
        (Some(none.to_owned()), 401),
        (
            Some(bearer(&json!({"exp": now.as_second(), "role": "admin"}))),
            401,
        ),
        (Some(bearer(&json!({"role": "admin"}))), 401),
        (Some(bearer(&json!({"exp": exp, "role": "user"}))), 403),
        (Some(bearer(&json!({"exp": exp, "partner": "pk_1"}))), 403),
        (Some(bearer(&json!({"exp": exp, "role": "admin"}))), 200),
        (Some(bearer(&json!({"exp": exp, "role": ["admin"]}))), 200),
        (Some(bearer(&json!({"exp": exp, "scope": "x admin"}))), 200),
    ] {
        let asked = request("GET", "/admin/revenue", authorization.as_deref());
        let response = handle(&ledger.app, asked, now).await;
        assert_eq!(response.status(), expected, "{authorization:?}");
        assert!(response.headers().contains_key("x-request-id"));
        if expected == 401 {
            assert_eq!(response.headers()["www-authenticate"], "Bearer");
        }
    }
    let asked = request("GET", "/admin/revenue?nonsense=1", None);
    let response = handle(&ledger.app, asked, now).await;
    assert_eq!(response.status(), 401, "a stranger learns no parameters");
}

#[tokio::test]
async fn a_deployment_without_a_secret_is_not_the_callers_fault() {
    let ledger = Ledger::with(&[("ADMIN_JWT_SECRET", "")]).await;
    let (status, problem) = ledger.get("/admin/revenue", NOW).await;
    assert_eq!((status, &problem["code"]), (503, &json!("not_configured")));
    assert!(!problem.to_string().contains("ADMIN_JWT_SECRET"));
}

#[tokio::test]
async fn paths_and_methods_outside_the_table_are_refused() {
    let ledger = Ledger::create().await;
    let now: Timestamp = NOW.parse().unwrap();
    for (method, path, expected) in [
        ("GET", "/admin/revenue/", 404),
        ("GET", "//admin/revenue", 404),
        ("GET", "/admin", 404),
        ("HEAD", "/admin/revenue", 405),
        ("POST", "/admin/revenue", 405),
        ("DELETE", "/admin/health", 405),
    ] {
        let asked = request(method, path, Some(&admin(now)));
        let response = handle(&ledger.app, asked, now).await;
        assert_eq!(response.status(), expected, "{method} {path}");
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        if expected == 405 {
            assert_eq!(response.headers()["allow"], "GET");
        }
    }
}

#[tokio::test]
async fn a_body_beyond_one_mebibyte_is_refused() {
    let ledger = Ledger::create().await;
    let now: Timestamp = NOW.parse().unwrap();
    let mut asked = request("GET", "/admin/revenue", Some(&admin(now)));
    *asked.body_mut() = lambda_http::Body::Binary(vec![b' '; 1024 * 1024 + 1]);
    assert_eq!(handle(&ledger.app, asked, now).await.status(), 413);
}
