//! The worked examples, every model × cycle × proration × currency exponent, and the identities.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::partner::cycle::Calendar;
use crate::partner::terms::{Change, History};

fn contract(members: &Value) -> Contract {
    let mut all = json!({"api_key_prefix": "dp_pk_alpha", "contract_start_date": "2025-03-01"});
    for (name, value) in members.as_object().unwrap() {
        all[name] = value.clone();
    }
    Contract::parse(all.as_object().unwrap()).unwrap()
}

/// The first period of the contract.
fn first_period(contract: &Contract) -> BillingPeriod {
    let mut members = contract.dated();
    members.insert("api_key_prefix".to_owned(), json!(contract.api_key_prefix));
    members.insert("payment_method".to_owned(), json!(contract.payment_method));
    let since_ever = Change {
        id: 1,
        effective_from: None,
        members: members.clone(),
        created_at: Timestamp::UNIX_EPOCH,
    };
    let mut changes = vec![since_ever];
    if let Some(end) = contract.contract_end_date {
        changes.push(Change {
            id: 2,
            effective_from: Some(end.tomorrow().unwrap()),
            members: json!({"status": "canceled"}).as_object().unwrap().clone(),
            created_at: Timestamp::UNIX_EPOCH,
        });
    }
    let history = History::new(members, changes).unwrap();
    let calendar = Calendar::new(&history, &[]).unwrap();
    let now = "2027-01-01T00:00:00Z".parse().unwrap();
    calendar.unbilled(now).unwrap().remove(0)
}

fn used(units: i64, requests: i64) -> Usage {
    Usage { units, requests }
}

/// `kind quantity × price = total` of each line of the contract's first period.
fn lines(members: &Value, usage: Usage) -> Vec<String> {
    let contract = contract(members);
    let rated = rate(&contract, &first_period(&contract), usage).unwrap();
    let printed = rated.lines.iter().map(|line| {
        let price = line.unit_amount_decimal.as_deref().unwrap_or("-");
        let kind = serde_json::to_value(line.kind).unwrap();
        let kind = kind.as_str().unwrap().to_owned();
        format!("{kind} {} x {price} = {}", line.quantity, line.total_cents)
    });
    printed.collect()
}

fn tiers() -> Value {
    json!([
        {"up_to": 100, "unit_price_cents": 100},
        {"up_to": 1000, "unit_price_cents": 80},
        {"up_to": null, "unit_price_cents": 50}
    ])
}

#[test]
fn the_worked_examples_come_out() {
    let hybrid = json!({"pricing_model": "hybrid", "monthly_flat_fee_cents": 50_000, "per_deed_price_cents": 250});
    assert_eq!(
        lines(&hybrid, used(312, 312)),
        ["flat_fee 1 x 50000 = 50000", "usage 312 x 250 = 78000"]
    );
    let per_request = json!({"pricing_model": "per_request", "per_1000_requests_cents": 700});
    for (requests, blocks) in [(1, 1), (1_000, 1), (1_001, 2), (2_000, 2), (2_001, 3)] {
        assert_eq!(
            lines(&per_request, used(0, requests)),
            [format!("usage {blocks} x 700 = {}", blocks * 700)]
        );
    }
    assert!(lines(&per_request, used(0, 0)).is_empty());
    let graduated = json!({"pricing_model": "tiered", "tier_mode": "graduated", "tiers": tiers()});
    assert_eq!(
        lines(&graduated, used(1_500, 0)),
        [
            "usage 100 x 100 = 10000",
            "usage 900 x 80 = 72000",
            "usage 500 x 50 = 25000"
        ]
    );
    let volume = json!({"pricing_model": "tiered", "tier_mode": "volume", "tiers": tiers()});
    assert_eq!(lines(&volume, used(1_500, 0)), ["usage 1500 x 50 = 75000"]);
    let flat = json!({
        "pricing_model": "flat", "monthly_flat_fee_cents": 31_000, "contract_start_date": "2025-03-11"
    });
    assert_eq!(lines(&flat, used(9, 9)), ["flat_fee 1 x 21000 = 21000"]);
}

#[test]
fn tiers_end_where_they_say() {
    for (units, graduated, volume) in [
        (0, 0, 0),
        (1, 100, 100),
        (100, 10_000, 10_000),
        (101, 10_080, 8_080),
        (1_000, 82_000, 80_000),
        (1_001, 82_050, 50_050),
    ] {
        for (mode, expected) in [("graduated", graduated), ("volume", volume)] {
            let contract =
                contract(&json!({"pricing_model": "tiered", "tier_mode": mode, "tiers": tiers()}));
            let rated = rate(&contract, &first_period(&contract), used(units, 0)).unwrap();
            assert_eq!(rated.subtotal_cents(), Ok(expected), "{mode} {units}");
        }
    }
}

#[test]
fn a_tier_that_is_reached_costs_its_fee_once_and_prices_may_be_below_a_cent() {
    let tiers = json!([
        {"up_to": 1000, "unit_price_cents": "0.125", "flat_cents": 500},
        {"up_to": null, "unit_price_cents": "0.0005", "flat_cents": 900}
    ]);
    let tiered = |mode: &str| json!({"pricing_model": "tiered", "tier_mode": mode, "tiers": tiers});
    assert_eq!(
        lines(&tiered("graduated"), used(4_000, 0)),
        [
            "usage 1000 x 0.125 = 125",
            "usage 1 x 500 = 500",
            "usage 3000 x 0.0005 = 2",
            "usage 1 x 900 = 900"
        ],
        "1.5 goes to the even neighbour"
    );
    assert_eq!(
        lines(&tiered("volume"), used(20, 0)),
        ["usage 20 x 0.125 = 2", "usage 1 x 500 = 500"],
        "2.5 as well"
    );
    // Zero units reach the first tier, also when they are all that is left after the included ones.
    for mode in ["graduated", "volume"] {
        assert_eq!(lines(&tiered(mode), used(0, 0)), ["usage 1 x 500 = 500"]);
        let mut included = tiered(mode);
        included["included_units"] = json!(10);
        assert_eq!(
            lines(&included, used(7, 0)),
            ["usage 0 x 0 = 0", "usage 1 x 500 = 500"]
        );
        let contract = contract(&tiered(mode));
        let nothing_used = bill(&contract, &first_period(&contract), used(0, 0), &[]);
        assert_eq!(nothing_used.unwrap().unwrap().total_cents, 500);
        // Whole in a part of a period.
        let mut part = tiered(mode);
        part["contract_start_date"] = json!("2025-03-31");
        assert_eq!(lines(&part, used(0, 0)), ["usage 1 x 500 = 500"]);
    }
}

#[test]
fn included_units_come_off_before_anything_is_priced() {
    let with = |members: Value| {
        let mut members = members;
        members["included_units"] = json!(100);
        members
    };
    let per_deed = with(json!({"pricing_model": "per_deed", "per_deed_price_cents": 250}));
    assert_eq!(lines(&per_deed, used(312, 0)), ["usage 212 x 250 = 53000"]);
    assert_eq!(lines(&per_deed, used(80, 0)), ["usage 0 x 250 = 0"]);
    let per_request = with(json!({"pricing_model": "per_request", "per_1000_requests_cents": 700}));
    assert_eq!(lines(&per_request, used(0, 1_100)), ["usage 1 x 700 = 700"]);
    assert_eq!(
        lines(&per_request, used(0, 1_101)),
        ["usage 2 x 700 = 1400"]
    );
    let graduated =
        with(json!({"pricing_model": "tiered", "tier_mode": "graduated", "tiers": tiers()}));
    assert_eq!(lines(&graduated, used(150, 0)), ["usage 50 x 100 = 5000"]);
    assert_eq!(lines(&graduated, used(99, 0)), ["usage 0 x 0 = 0"]);
    // 21 of 31 days of 100 units: 67.7, rounded down.
    let mut part = per_deed.clone();
    part["contract_start_date"] = json!("2025-03-11");
    assert_eq!(lines(&part, used(70, 0)), ["usage 3 x 250 = 750"]);
    // Three months of them.
    let mut quarter = per_deed;
    quarter["billing_cycle"] = json!("quarterly");
    assert_eq!(lines(&quarter, used(301, 0)), ["usage 1 x 250 = 250"]);
}

#[test]
fn the_minimum_is_made_up_for() {
    let hybrid = |minimum: i64| {
        json!({
            "pricing_model": "hybrid", "monthly_flat_fee_cents": 50_000, "per_deed_price_cents": 250,
            "minimum_commitment_cents": minimum
        })
    };
    assert_eq!(
        lines(&hybrid(100_000), used(10, 0)),
        [
            "flat_fee 1 x 50000 = 50000",
            "usage 10 x 250 = 2500",
            "minimum_commitment 1 x 47500 = 47500"
        ]
    );
    assert_eq!(lines(&hybrid(52_500), used(10, 0)).len(), 2);
    // Prorated like the flat fee: 21 of 31 days.
    let mut part = hybrid(62_000);
    part["contract_start_date"] = json!("2025-03-11");
    part["monthly_flat_fee_cents"] = json!(31_000);
    assert_eq!(
        lines(&part, used(0, 0)),
        [
            "flat_fee 1 x 21000 = 21000",
            "minimum_commitment 1 x 21000 = 21000"
        ]
    );
}

#[test]
fn a_fixed_amount_is_for_the_months_of_the_cycle_and_its_billed_days() {
    // (cycle, start, days billed, days of the cycle, 10,000 a month)
    for (cycle, start, billed_days, cycle_days, fee) in [
        ("monthly", "2025-03-01", 31, 31, 10_000),
        ("monthly", "2025-03-31", 1, 31, 323),
        ("monthly", "2024-02-01", 29, 29, 10_000),
        ("monthly", "2024-02-29", 1, 29, 345),
        ("monthly", "2025-02-15", 14, 28, 5_000),
        ("monthly", "2025-04-16", 15, 30, 5_000),
        ("quarterly", "2025-01-01", 90, 90, 30_000),
        ("quarterly", "2024-01-01", 91, 91, 30_000),
        ("quarterly", "2025-01-16", 75, 90, 25_000),
        ("annual", "2025-01-01", 365, 365, 120_000),
        ("annual", "2024-01-01", 366, 366, 120_000),
        ("annual", "2024-01-31", 336, 366, 110_164),
    ] {
        for (currency, exponent) in [("JPY", 0), ("USD", 2), ("KWD", 3)] {
            let members = json!({
                "pricing_model": "flat", "monthly_flat_fee_cents": 10_000, "currency": currency,
                "payment_method": "wire",
                "billing_cycle": cycle, "contract_start_date": start
            });
            let contract = contract(&members);
            let period = first_period(&contract);
            assert_eq!(period.share.billed_days, billed_days, "{cycle} {start}");
            assert_eq!(period.share.cycle_days, cycle_days, "{cycle} {start}");
            let bill = bill(&contract, &period, Usage::default(), &[]);
            let bill = bill.unwrap().unwrap();
            assert_eq!(bill.total_cents, fee, "{cycle} {start} {currency}");
            assert_eq!(bill.currency.exponent(), exponent);
            assert_eq!(bill.lines[0].proration, billed_days != cycle_days);
        }
    }
}

/// Amounts are minor units of whatever currency: the same numbers in each. Every model, in every cycle, whole and from
/// the middle of its first month.
#[test]
fn every_model_in_every_cycle_and_currency() {
    // 2025: March has 31 days, March to May 92, March to February 365. From the 17th: 15, 76 and 349 of them.
    // Flat 31,000 and included 31 per month; 5,000 units and requests used; the minimum is out of reach.
    let models = [
        (
            json!({"pricing_model": "flat"}),
            [[31_000, 15_000], [93_000, 76_826], [372_000, 355_693]],
        ),
        (
            json!({"pricing_model": "per_deed"}),
            // 7 each of 4,969 | 4,985; 4,907 | 4,924; 4,628 | 4,645.
            [[34_783, 34_895], [34_349, 34_468], [32_396, 32_515]],
        ),
        (
            json!({"pricing_model": "hybrid"}),
            [[65_783, 49_895], [127_349, 111_294], [404_396, 388_208]],
        ),
        (
            json!({"pricing_model": "per_request"}),
            [[500, 500], [500, 500], [500, 500]],
        ),
        (
            json!({"pricing_model": "tiered", "tier_mode": "graduated"}),
            // 82,000 for the first thousand, 50 each beyond.
            [[280_450, 281_250], [277_350, 278_200], [263_400, 264_250]],
        ),
        (
            json!({"pricing_model": "tiered", "tier_mode": "volume"}),
            [[248_450, 249_250], [245_350, 246_200], [231_400, 232_250]],
        ),
    ];
    for (model, expected) in models {
        for (cycle, by_start) in ["monthly", "quarterly", "annual"].iter().zip(expected) {
            for (start, total_cents) in ["2025-03-01", "2025-03-17"].iter().zip(by_start) {
                for currency in ["JPY", "USD", "KWD"] {
                    let mut members = model.clone();
                    for (name, value) in [
                        ("billing_cycle", json!(cycle)),
                        ("contract_start_date", json!(start)),
                        ("currency", json!(currency)),
                        ("payment_method", json!("wire")),
                        ("monthly_flat_fee_cents", json!(31_000)),
                        ("per_deed_price_cents", json!(7)),
                        ("per_1000_requests_cents", json!(100)),
                        ("tiers", tiers()),
                        ("included_units", json!(31)),
                        ("tax_rate_bps", json!(1_900)),
                    ] {
                        members[name] = value;
                    }
                    let contract = contract(&members);
                    let period = first_period(&contract);
                    let bill = bill(&contract, &period, used(5_000, 5_000), &[]);
                    let bill = bill.unwrap().unwrap();
                    let case = format!("{model} {cycle} {start} {currency}");
                    assert_eq!(bill.subtotal_cents, total_cents, "{case}");
                    let vat = (total_cents * 19 + 50) / 100;
                    assert_eq!(bill.tax_cents, vat, "{case}");
                    let shares: i64 = bill.lines.iter().map(|line| line.tax_cents).sum();
                    assert_eq!(shares, vat, "{case}");
                    assert_eq!(bill.total_cents, total_cents + bill.tax_cents, "{case}");
                    assert!(bill.lines.iter().all(|line| line.currency == bill.currency));
                }
            }
        }
    }
}

#[test]
fn nothing_to_bill_makes_no_invoice() {
    let of = |members: Value, usage: Usage| {
        let contract = contract(&members);
        bill(&contract, &first_period(&contract), usage, &[]).unwrap()
    };
    let per_deed =
        json!({"pricing_model": "per_deed", "per_deed_price_cents": 250, "included_units": 10});
    assert_eq!(of(per_deed.clone(), used(0, 0)), None);
    assert_eq!(of(per_deed.clone(), used(10, 0)), None, "all are included");
    assert!(of(per_deed.clone(), used(11, 0)).is_some());
    let mut minimum = per_deed;
    minimum["minimum_commitment_cents"] = json!(100);
    assert_eq!(of(minimum, used(0, 0)).unwrap().total_cents, 100);
    let flat = json!({"pricing_model": "flat", "monthly_flat_fee_cents": 100});
    assert!(of(flat, used(0, 0)).is_some());
    let free = json!({"pricing_model": "flat", "monthly_flat_fee_cents": 0});
    assert_eq!(of(free, used(5, 5)), None);
}

/// A correction of February, with a tax of this percentage, or none.
fn correction(
    period: &BillingPeriod,
    amount_cents: i64,
    quantity: i64,
    vat: Option<&str>,
) -> Adjustment {
    let vat = vat.map(|percentage| Tax::unnamed(percentage.parse().unwrap()));
    Adjustment {
        first_day: "2025-02-01".parse().unwrap(),
        last_day: "2025-02-28".parse().unwrap(),
        period: period.period,
        amount_cents,
        quantity,
        counted: "units",
        taxes: vat.into_iter().collect(),
    }
}

/// `percentage of taxable: tax` of each tax.
fn taxes(groups: &[TaxGroup]) -> Vec<String> {
    let told = groups.iter().map(|group| {
        format!(
            "{} of {}: {}",
            group.percentage, group.taxable_cents, group.tax_cents
        )
    });
    told.collect()
}

#[test]
fn an_adjustment_is_a_line_with_the_taxes_of_its_own_period() {
    let contract = contract(&json!({
        "pricing_model": "per_deed", "per_deed_price_cents": 250, "tax_percent": "19"
    }));
    let period = first_period(&contract);
    let bill = |usage, amount_cents, quantity, vat| {
        let adjustment = correction(&period, amount_cents, quantity, Some(vat));
        bill(&contract, &period, usage, &[adjustment]).unwrap()
    };
    let more = bill(used(2, 2), 750, 3, "19").unwrap();
    assert_eq!(more.lines[1].kind, LineKind::Adjustment);
    assert_eq!(
        more.lines[1].description,
        "Adjustment for 2025-02-01 to 2025-02-28: +3 units after invoicing"
    );
    // 237.5: one rounding for one tax.
    assert_eq!(
        (more.subtotal_cents, more.tax_cents, more.total_cents),
        (1_250, 238, 1_488)
    );
    assert_eq!(taxes(&more.taxes), ["19 of 1250: 238"]);
    // In February it was 16 %.
    let then = bill(used(2, 2), 750, 3, "16").unwrap();
    assert_eq!(taxes(&then.taxes), ["19 of 500: 95", "16 of 750: 120"]);
    let alone = bill(used(0, 0), 750, 3, "16").unwrap();
    assert_eq!(alone.total_cents, 870);
    assert_eq!(bill(used(0, 0), 0, 3, "16"), None);
    let by_itself = correction(&period, 750, 3, Some("16"));
    let by_itself = bill_correction(&by_itself, Currency::USD, 1).unwrap();
    assert_eq!(
        (by_itself.total_cents, taxes(&by_itself.taxes)),
        (870, vec!["16 of 750: 120".to_owned()])
    );
}

#[test]
fn less_than_nothing_is_an_invoice_of_zero_and_a_credit_tax_by_tax() {
    let contract = contract(&json!({
        "pricing_model": "per_deed", "per_deed_price_cents": 250, "tax_percent": "19"
    }));
    let period = first_period(&contract);
    let adjustments = [
        correction(&period, -1_000, -4, Some("16")),
        correction(&period, -25, -1, None),
    ];
    let negative = bill(&contract, &period, used(2, 2), &adjustments)
        .unwrap()
        .unwrap();
    // 500 + 95 − 1000 − 160 − 25.
    assert_eq!(negative.carried_over_cents, 590);
    assert_eq!(
        taxes(&negative.carried_over_taxes),
        ["19 of -500: -95", "16 of 1000: 160"]
    );
    assert_eq!(
        (
            negative.subtotal_cents,
            negative.tax_cents,
            negative.total_cents
        ),
        (0, 0, 0)
    );
    assert_eq!(taxes(&negative.taxes), ["19 of 0: 0", "16 of 0: 0"]);
    let lines: Vec<(LineKind, i64, i64)> = negative
        .lines
        .iter()
        .map(|line| (line.kind, line.total_cents, line.tax_cents))
        .collect();
    assert_eq!(
        lines,
        [
            (LineKind::Usage, 500, 95),
            (LineKind::Adjustment, -1_000, -160),
            (LineKind::Adjustment, -25, 0),
            (LineKind::CarriedOver, -500, -95),
            (LineKind::CarriedOver, 1_000, 160),
            (LineKind::CarriedOver, 25, 0),
        ]
    );
}

#[test]
fn where_stripe_collects_lines_and_taxes_are_what_it_charges() {
    let members = |method: &str| {
        json!({
            "pricing_model": "hybrid", "monthly_flat_fee_cents": 10_000, "per_deed_price_cents": 30,
            "currency": "KWD", "payment_method": method, "tax_percent": "5",
            "contract_start_date": "2025-03-31"
        })
    };
    let amounts = |method: &str| {
        let contract = contract(&members(method));
        let bill = bill(&contract, &first_period(&contract), used(1, 1), &[]);
        let bill = bill.unwrap().unwrap();
        let lines: Vec<i64> = bill.lines.iter().map(|line| line.total_cents).collect();
        (lines, bill.tax_cents)
    };
    // A day of 31: 322.6. 5 % of 353 and of 350.
    assert_eq!(amounts("wire"), (vec![323, 30], 18));
    assert_eq!(amounts("stripe"), (vec![320, 30], 20));
}

#[test]
fn an_amount_out_of_range_is_an_error() {
    let contract = contract(&json!({
        "pricing_model": "per_deed", "per_deed_price_cents": 1_000_000_000_000_000_i64
    }));
    let period = first_period(&contract);
    assert_eq!(
        bill(&contract, &period, used(i64::MAX, 0), &[]),
        Err(money::Error::OutOfRange)
    );
}

#[test]
fn an_invoice_unlike_the_others_is_looked_at_first() {
    let before = [100, 100, 120, 80, 90, 110];
    assert!(!needs_review(1_000, 0, &before, None));
    assert!(needs_review(1_001, 0, &before, None));
    assert!(
        !needs_review(1_001, 200, &before, None),
        "the contract says so"
    );
    assert!(
        !needs_review(1_000_000, 0, &[], None),
        "there is nothing to compare with"
    );
    assert!(!needs_review(1_000_000, 0, &[0, 0, 0], None));
    assert!(needs_review(1_000_000, 0, &[], Some(999_999)));
    assert!(!needs_review(1_000_000, 0, &[], Some(1_000_000)));
    assert_eq!(median(&[3, 1, 2]), Some(2));
    assert_eq!(median(&[4, 1, 2, 8]), Some(3));
    assert_eq!(median(&[i64::MAX, i64::MAX]), Some(i64::MAX));
}

#[test]
fn a_line_is_read_as_a_line_of_any_invoice() {
    let contract = contract(&json!({"pricing_model": "flat", "monthly_flat_fee_cents": 100}));
    let rated = rate(&contract, &first_period(&contract), Usage::default()).unwrap();
    let stored = serde_json::to_value(&rated.lines[0]).unwrap();
    let line: crate::stripe_objects::invoice::Line =
        serde_json::from_value(stored.clone()).unwrap();
    assert_eq!(line.total_cents, 100);
    assert_eq!(
        line.description.as_deref(),
        Some("Flat fee, 2025-03-01 to 2025-03-31")
    );
    assert_eq!(
        serde_json::from_value::<RatedLine>(stored).unwrap(),
        rated.lines[0]
    );
}

fn models() -> impl Strategy<Value = Value> {
    let prices = (0_i64..1_000_000, 0_i64..100_000, 0_i64..100_000);
    let tiers = (1_i64..5_000, 0_i64..100_000, 0_i64..100_000, 0_i64..5_000);
    let rest = (
        0_i64..2_000,
        0_i64..3_000_000,
        0_i32..2_500,
        1_i8..=28,
        0_usize..3,
    );
    (0_usize..6, prices, tiers, rest).prop_map(
        |(model, (flat, per_deed, per_1000), (up_to, first, second, fee), (included, minimum, tax, day, cycle))| {
            let (model, mode) = [
                ("flat", "graduated"),
                ("per_deed", "graduated"),
                ("hybrid", "graduated"),
                ("per_request", "graduated"),
                ("tiered", "graduated"),
                ("tiered", "volume"),
            ][model];
            let cycle = ["monthly", "quarterly", "annual"][cycle];
            json!({
                "pricing_model": model, "monthly_flat_fee_cents": flat, "per_deed_price_cents": per_deed,
                "per_1000_requests_cents": per_1000, "tier_mode": mode,
                "tiers": [
                    {"up_to": up_to, "unit_price_cents": format!("{}.{:03}", first / 1_000, first % 1_000)},
                    {"up_to": null, "unit_price_cents": format!("{}.{:03}", second / 1_000, second % 1_000),
                     "flat_cents": fee}
                ],
                "included_units": included, "minimum_commitment_cents": minimum, "tax_rate_bps": tax,
                "contract_start_date": format!("2025-03-{day:02}"),
                "billing_cycle": cycle
            })
        },
    )
}

proptest! {
    #[test]
    fn the_lines_add_up_and_nothing_is_negative(
        members in models(),
        units in 0_i64..1_000_000,
        requests in 0_i64..1_000_000,
        late in proptest::collection::vec(-50_000_000_i64..50_000_000, 0..4),
    ) {
        let contract = contract(&members);
        let period = first_period(&contract);
        let adjustments: Vec<Adjustment> = late.iter().map(|amount_cents| Adjustment {
            first_day: period.first_day,
            last_day: period.last_day,
            period: period.period,
            amount_cents: *amount_cents,
            quantity: 1,
            counted: "units",
            taxes: [vec![], contract.taxes.clone(), vec![Tax::unnamed("7.5".parse().unwrap())]]
                [usize::try_from(amount_cents.rem_euclid(3)).unwrap()].clone(),
        }).collect();
        if let Some(bill) = bill(&contract, &period, used(units, requests), &adjustments).unwrap() {
            let totals: i64 = bill.lines.iter().map(|line| line.total_cents).sum();
            let taxes: i64 = bill.lines.iter().map(|line| line.tax_cents).sum();
            prop_assert_eq!(bill.subtotal_cents, totals);
            prop_assert_eq!(bill.tax_cents, taxes);
            prop_assert_eq!(bill.total_cents, totals + taxes);
            let groups: i64 = bill.taxes.iter().map(|group| group.tax_cents).sum();
            prop_assert_eq!(groups, taxes);
            for group in &bill.taxes {
                prop_assert_eq!(
                    group.tax_cents,
                    tax::tax_of(group.percentage, group.taxable_cents, contract.step_cents()).unwrap()
                );
            }
            prop_assert!(bill.total_cents >= 0);
            let balance: i64 = bill.carried_over_taxes.iter().map(|group| group.tax_cents).sum();
            prop_assert!(bill.carried_over_cents > 0 || balance == 0);
            prop_assert!(bill.carried_over_cents == 0 || bill.total_cents == 0);
            // What is due or given: what the period and the corrections come to, with tax.
            let own = rate(&contract, &period, used(units, requests)).unwrap();
            let before_tax = own.subtotal_cents().unwrap() + late.iter().sum::<i64>();
            let untaxed = bill.lines.iter().filter(|line| line.kind != LineKind::CarriedOver);
            prop_assert_eq!(untaxed.map(|line| line.total_cents).sum::<i64>(), before_tax);
        }
        let share = period.share;
        let again = rate_again(&contract, share, used(units, requests)).unwrap();
        prop_assert_eq!(again, rate(&contract, &period, used(units, requests)).unwrap().subtotal_cents().unwrap());
    }

    #[test]
    fn a_minimum_is_reached_and_more_usage_never_costs_less_but_by_volume(
        members in models(),
        units in 0_i64..100_000,
        more in 0_i64..100_000,
    ) {
        let contract = contract(&members);
        let share = first_period(&contract).share;
        let cost = |units| rate_again(&contract, share, used(units, units)).unwrap();
        prop_assert!(cost(units) >= fixed_cents(&contract, share).unwrap()
            || contract.tier_mode == Some(TierMode::Volume));
        if contract.tier_mode != Some(TierMode::Volume) || contract.pricing_model != PricingModel::Tiered {
            prop_assert!(cost(units + more) >= cost(units));
        }
    }

    #[test]
    fn usage_of_the_parts_costs_what_the_whole_costs(
        price in 0_i64..1_000_000,
        parts in proptest::collection::vec(0_i64..1_000_000, 1..12),
    ) {
        let contract = contract(&json!({"pricing_model": "per_deed", "per_deed_price_cents": price}));
        let share = first_period(&contract).share;
        let cost = |units| rate_again(&contract, share, used(units, 0)).unwrap();
        prop_assert_eq!(parts.iter().map(|units| cost(*units)).sum::<i64>(), cost(parts.iter().sum()));
    }

    #[test]
    fn the_days_of_a_month_split_between_two_contracts_cost_the_month(
        fee in 0_i64..100_000_000,
        day in 2_i8..=31,
    ) {
        let until = contract(&json!({"pricing_model": "flat", "monthly_flat_fee_cents": fee,
            "contract_end_date": format!("2025-03-{:02}", day - 1)}));
        let from = contract(&json!({"pricing_model": "flat", "monthly_flat_fee_cents": fee,
            "contract_start_date": format!("2025-03-{day:02}")}));
        let cost = |contract: &Contract| fixed_cents(contract, first_period(contract).share).unwrap();
        // Each part is rounded for itself: together they are off by one unit at most.
        prop_assert!((cost(&until) + cost(&from) - fee).abs() <= 1);
    }
}

#[test]
fn frozen_terms_rate_as_the_contract_did() {
    let contract = contract(&json!({
        "pricing_model": "tiered", "tier_mode": "graduated",
        "tiers": [{"up_to": 10, "unit_price_cents": "0.125"}, {"up_to": null, "unit_price_cents": 3}],
        "included_units": 5, "minimum_commitment_cents": 7, "currency": "KWD", "unit_source": "both",
        "billable_event_types": ["deed"], "contract_start_date": "2025-03-11", "tax_percent": "8.875",
        "billable_status_codes": "200-299"
    }));
    let period = first_period(&contract);
    let stored = FrozenTerms::freeze(&contract, &period).unwrap();
    let frozen = FrozenTerms::read(&stored, None).unwrap();
    assert_eq!(frozen.contract.taxes, contract.taxes);
    assert_eq!(
        frozen.contract.billable_status_codes,
        contract.billable_status_codes
    );
    assert_eq!(frozen.share, period.share);
    assert_eq!(frozen.usage, period.usage);
    assert_eq!(
        frozen.contract.billable_event_types,
        contract.billable_event_types
    );
    assert_eq!(
        rate_again(&frozen.contract, frozen.share, used(40, 1)),
        rate(&contract, &period, used(40, 1))
            .unwrap()
            .subtotal_cents()
    );
    assert_eq!(FrozenTerms::read(&json!({"contract": {}}), None), None);
    // As they were stored before: the invoice knows the tax, and each row counted.
    let mut before = stored;
    for member in ["taxes", "billable_status_codes", "payment_method"] {
        before["contract"].as_object_mut().unwrap().remove(member);
    }
    let frozen = FrozenTerms::read(&before, Some(1_900)).unwrap();
    assert_eq!(frozen.contract.tax_rate_bps(), 1_900);
    assert_eq!(frozen.contract.billable_status_codes, StatusCodes::All);
    assert_eq!(frozen.contract.step_cents(), 1);
}
