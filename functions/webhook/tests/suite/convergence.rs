//! Invariants M and C (`docs/ledger.md`): whatever the order, duplication and concurrency, the ledger is the same,
//! and it is what the story says, to the cent.

use std::collections::BTreeMap;

use super::balance::DIFFERING;
use super::bundle::{self, Webhook};
use domain::payment::FeeEstimate;
use fake_stripe::{Expected, Scenario, Shape, scenarios};
use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use runtime::config::Environment;
use serde_json::Value;
use sha2::{Digest, Sha256};
use shared::ledger::{apply_event, apply_events, apply_fetched};
use stripe::account::Account;
use stripe::event::Event;
use testing::ledger::unmatched_parts;
use testing::pooler::Pooler;
use testing::{LEDGER, TestDatabase, differing_rows, ledger_rows};
use tokio_postgres::{Client, GenericClient, Statement, Transaction};

/// Random orders of each of the usual sequences of events …
const ORDERS: usize = 200;
/// … and of the further ones, which vary them.
const ORDERS_OF_VARIATIONS: usize = 40;
const VARIATIONS: [&str; 9] = [
    "one_off_payment_declined_then_paid",
    "one_off_payment_declined_then_canceled",
    "forever_coupon_on_a_yearly_price",
    "once_coupon_makes_the_first_month_free",
    "euro_customer_with_tax",
    "yen_customer",
    "collection_paused_and_resumed",
    "credit_note_before_payment",
    "two_changes_in_one_second",
];
/// Random orders of each sequence with objects fetched in between.
const ORDERS_WITH_FETCHES: usize = 6;
/// How often an order goes on in two: once half of it is applied, then half of the rest, and so on.
const BRANCHINGS: u32 = 3;
const FEES: FeeEstimate = FeeEstimate {
    bps: 290,
    fixed_cents: 30,
};

/// `revenue_daily` is the sum of its lines, and the lines of the payments.
const UNEXPLAINED_DAYS: &str = "
    WITH lines AS (
        SELECT day, currency,
               sum(amount_cents) FILTER (WHERE kind = 'gross') AS gross_cents,
               sum(amount_cents) FILTER (WHERE kind IN ('fee', 'dispute_fee',
                                                        'dispute_fee_reinstated')) AS fees_cents,
               sum(amount_cents) FILTER (WHERE kind = 'refund') AS refunds_cents,
               sum(amount_cents) FILTER (WHERE kind IN ('dispute', 'dispute_reinstated'))
                   AS disputes_cents,
               count(*) FILTER (WHERE kind = 'gross') AS payments,
               count(*) FILTER (WHERE kind = 'failed') AS failed_payments,
               count(*) FILTER (WHERE kind = 'fee' AND is_estimated) AS estimated_fees
        FROM revenue_entries GROUP BY day, currency
    )
    SELECT count(*) FROM lines FULL JOIN revenue_daily AS stored USING (day, currency)
    WHERE (COALESCE(lines.gross_cents, 0), COALESCE(lines.fees_cents, 0),
           COALESCE(lines.refunds_cents, 0), COALESCE(lines.disputes_cents, 0), lines.payments,
           lines.failed_payments, lines.estimated_fees)
        IS DISTINCT FROM (stored.gross_cents, stored.fees_cents, stored.refunds_cents,
           stored.disputes_cents, stored.payments, stored.failed_payments, stored.estimated_fees)";

/// The changes of status and their rollup say at every instant what the newest snapshots up to it say.
const MISCOUNTED_STATUSES: &str = "
    WITH instants AS (
        SELECT DISTINCT occurred_at FROM subscription_versions
        UNION SELECT DISTINCT date_trunc('day', occurred_at, 'UTC') FROM subscription_versions
    ), shown AS (
        SELECT instants.occurred_at, last.status, count(*) AS subscriptions
        FROM instants CROSS JOIN LATERAL (
            SELECT DISTINCT ON (stripe_subscription_id) status FROM subscription_versions AS version
            WHERE version.occurred_at <= instants.occurred_at AND NOT overruled
            ORDER BY stripe_subscription_id, status IN ('canceled', 'incomplete_expired') DESC,
                     occurred_at DESC, source_created_at DESC, source_rank DESC, source_event_id DESC
        ) AS last GROUP BY 1, 2
    ), changed AS (
        SELECT instants.occurred_at, status, sum(change) AS subscriptions
        FROM instants CROSS JOIN LATERAL (
            SELECT status, gained - lost AS change FROM subscriptions_daily
            WHERE day < (instants.occurred_at AT TIME ZONE 'UTC')::date
            UNION ALL
            SELECT side.status, side.change FROM subscription_status_changes AS moved
            CROSS JOIN LATERAL (VALUES (status_after, 1), (status_before, -1)) AS side (status, change)
            WHERE (moved.occurred_at AT TIME ZONE 'UTC')::date = (instants.occurred_at AT TIME ZONE 'UTC')::date
              AND moved.occurred_at <= instants.occurred_at AND side.status IS NOT NULL
        ) AS counted GROUP BY 1, 2 HAVING sum(change) <> 0
    )
    SELECT count(*) FROM shown FULL JOIN changed USING (occurred_at, status)
    WHERE shown.subscriptions IS DISTINCT FROM changed.subscriptions";

async fn apply_all(db: &Transaction<'_>, events: &[(Event, String)]) {
    for (event, payload) in events {
        let now = event.created_at.unwrap();
        if let Err(error) = apply_event(db, &Account::default(), event, payload, FEES, now).await {
            let chain = runtime::telemetry::cause_chain(&error);
            panic!("{} {}: {chain}", event.event_type, event.event_id);
        }
    }
}

/// What the former release archived has no digests.
const WITHOUT_DIGESTS: &str =
    "UPDATE stripe_events SET rank = NULL, state_digest = NULL, previous_digest = NULL";

/// Applies the events cut into sets at random, half of them of one event; now and then it is as if the former release had
/// applied those before.
async fn apply_in_sets(db: &Transaction<'_>, events: &[(Event, String)], random: &mut StdRng) {
    let mut rest = events;
    while !rest.is_empty() {
        if random.random_bool(0.05) {
            db.batch_execute(WITHOUT_DIGESTS).await.unwrap();
        }
        let length = match random.random_bool(0.5) {
            true => 1,
            false => random.random_range(1..=rest.len()),
        };
        let (set, later) = rest.split_at(length);
        let now = set
            .iter()
            .filter_map(|(event, _)| event.created_at)
            .max()
            .unwrap();
        let deliveries: Vec<_> = set
            .iter()
            .map(|(event, body)| (event, body.as_str()))
            .collect();
        if let Err(error) = apply_events(db, &Account::default(), &deliveries, FEES, now).await {
            let chain = runtime::telemetry::cause_chain(&error);
            let ids: Vec<&str> = set
                .iter()
                .map(|(event, _)| event.event_id.as_str())
                .collect();
            panic!("{ids:?}: {chain}");
        }
        rest = later;
    }
}

fn read(events: Vec<Value>) -> Vec<(Event, String)> {
    events
        .into_iter()
        .map(|value| {
            let text = value.to_string();
            (Event::from_value(value).unwrap(), text)
        })
        .collect()
}

/// The events in random order, some of them twice or thrice.
fn shuffled(events: &[(Event, String)], random: &mut StdRng) -> Vec<(Event, String)> {
    let mut order = events.to_vec();
    for event in events {
        while random.random_bool(0.2) {
            order.push(event.clone());
        }
    }
    order.shuffle(random);
    order
}

async fn database_with_users() -> (TestDatabase, Client) {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    for scenario in scenarios() {
        client
            .execute(
                "INSERT INTO users (id, email, full_name) VALUES ($1, 'buyer@example.com', 'Buyer')",
                &[&scenario.user_id],
            )
            .await
            .unwrap();
    }
    (database, client)
}

fn seed() -> u64 {
    let given = Environment::from_process().optional("CONVERGENCE_SEED");
    given
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random)
}

/// Eight orders share their first half, which is applied once, pairs of them seven eighths: the orders stay random, and
/// the suite quick.
async fn any_order_ends_in_the_same_rows(shape: Shape) {
    let seed = seed();
    let (_database, mut client) = database_with_users().await;
    let checks = Checks::prepare(&client).await;
    for scenario in scenarios() {
        let name = format!("{} in {shape:?}, CONVERGENCE_SEED={seed}", scenario.name);
        let mut random = StdRng::seed_from_u64(seed);
        let events = read(scenario.events(shape));
        let transaction = client.transaction().await.unwrap();
        apply_all(&transaction, &events).await;
        let expected = ledger_rows(&transaction).await.unwrap();
        let unmatched = unmatched_parts(&transaction).await.unwrap();
        assert_eq!(unmatched, Vec::<String>::new());
        assert_figures(&transaction, &scenario, shape, &name).await;
        transaction.rollback().await.unwrap();
        let is_variation = VARIATIONS.contains(&scenario.name);
        let orders = if is_variation {
            ORDERS_OF_VARIATIONS
        } else {
            ORDERS
        };
        let same = async |db: &Transaction<'_>, order: &[(Event, String)]| {
            checks.assert(db, &expected, order, &name).await;
        };
        let mut transaction = client.transaction().await.unwrap();
        for _ in 0..orders >> BRANCHINGS {
            let mut order = shuffled(&events, &mut random);
            go_on(
                &mut transaction,
                &mut order,
                0,
                BRANCHINGS,
                &mut random,
                &same,
            )
            .await;
        }
        transaction.rollback().await.unwrap();
    }
}

/// Applies half of what is left after the first `applied`, and goes on in two orders of the rest; all of what is left,
/// and compares, when no branching is. Takes back what it applied.
async fn go_on(
    db: &mut Transaction<'_>,
    order: &mut [(Event, String)],
    applied: usize,
    branchings: u32,
    random: &mut StdRng,
    same: &impl AsyncFn(&Transaction<'_>, &[(Event, String)]),
) {
    let mut savepoint = db.savepoint("branch").await.unwrap();
    if branchings == 0 {
        apply_in_sets(&savepoint, &order[applied..], random).await;
        same(&savepoint, order).await;
    } else {
        let until = applied + (order.len() - applied) / 2;
        apply_in_sets(&savepoint, &order[applied..until], random).await;
        for _ in 0..2 {
            order[until..].shuffle(random);
            Box::pin(go_on(
                &mut savepoint,
                order,
                until,
                branchings - 1,
                random,
                same,
            ))
            .await;
        }
    }
    savepoint.rollback().await.unwrap();
}

/// What holds of every ledger, prepared: it is asked some ten thousand times.
struct Checks {
    rows: Statement,
    unexplained_days: Statement,
    miscounted_statuses: Statement,
    unbalanced: Statement,
}

impl Checks {
    async fn prepare(db: &Client) -> Checks {
        Checks {
            rows: db.prepare(LEDGER).await.unwrap(),
            unexplained_days: db.prepare(UNEXPLAINED_DAYS).await.unwrap(),
            miscounted_statuses: db.prepare(MISCOUNTED_STATUSES).await.unwrap(),
            unbalanced: db.prepare(DIFFERING).await.unwrap(),
        }
    }

    /// That these rows are in the ledger, no others, and that they explain its sums.
    async fn assert(
        &self,
        db: &impl GenericClient,
        expected: &[String],
        order: &[(Event, String)],
        name: &str,
    ) {
        let rows = db.query(&self.rows, &[]).await.unwrap();
        let actual: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        if actual != expected {
            let order: Vec<String> = order
                .iter()
                .map(|(event, _)| format!("{} {}", event.event_type, event.event_id))
                .collect();
            let (missing, extra) = differing_rows(expected, &actual);
            panic!("{name}\nmissing {missing:#?}\nextra {extra:#?}\norder {order:#?}");
        }
        let unexplained: i64 = db
            .query_one(&self.unexplained_days, &[])
            .await
            .unwrap()
            .get(0);
        assert_eq!(unexplained, 0, "{name}: a day is not the sum of its lines");
        let miscounted: i64 = db
            .query_one(&self.miscounted_statuses, &[])
            .await
            .unwrap()
            .get(0);
        assert_eq!(
            miscounted, 0,
            "{name}: a status is not that of the snapshots"
        );
        let unbalanced: Option<String> = db.query_one(&self.unbalanced, &[]).await.unwrap().get(0);
        assert_eq!(
            unbalanced, None,
            "{name}: a payment is not the sum of its lines"
        );
    }
}

/// A row of `payment_history`: key, status, source of the fee, time of the success; amount,
/// refunds, fee, net, disputed.
type PaymentFigures = (String, String, Option<String>, Option<Timestamp>, [i64; 5]);

async fn assert_payments(db: &Transaction<'_>, expected: &Expected, shape: Shape, name: &str) {
    let payments: Vec<PaymentFigures> = db
        .query(
            "SELECT payment_key, status, fee_source, succeeded_at, amount_cents,
                    refund_amount_cents, stripe_fee_cents, net_amount_cents,
                    disputed_amount_cents
             FROM payment_history ORDER BY payment_key",
            &[],
        )
        .await
        .unwrap()
        .iter()
        .map(|row| {
            let figures = [4, 5, 6, 7, 8].map(|column| row.get(column));
            (row.get(0), row.get(1), row.get(2), row.get(3), figures)
        })
        .collect();
    let mut expected_payments: Vec<PaymentFigures> = expected
        .payments_in(shape)
        .into_iter()
        .map(|payment| {
            (
                payment.key.clone(),
                payment.status.to_owned(),
                payment.fee_source.map(str::to_owned),
                payment.succeeded_at,
                [
                    payment.amount_cents,
                    payment.refund_amount_cents,
                    payment.fee_cents,
                    payment.net_cents,
                    payment.disputed_cents,
                ],
            )
        })
        .collect();
    expected_payments.sort();
    assert_eq!(payments, expected_payments, "{name}: payments");
}

/// Gross, fees, refunds and disputes of each day, and how many payments and failed attempts.
async fn assert_days(db: &Transaction<'_>, expected: &Expected, shape: Shape, name: &str) {
    let days: Vec<(String, String, [i64; 6])> = db
        .query(
            "SELECT day::text, currency, gross_cents, fees_cents, refunds_cents, disputes_cents,
                    payments, failed_payments
             FROM revenue_daily ORDER BY day, currency",
            &[],
        )
        .await
        .unwrap()
        .iter()
        .map(|row| {
            let figures = [2, 3, 4, 5, 6, 7].map(|column| row.get(column));
            (row.get(0), row.get(1), figures)
        })
        .collect();
    let expected_days: Vec<(String, String, [i64; 6])> = expected
        .days_in(shape)
        .into_iter()
        .map(|day| {
            let figures = [
                day.gross_cents,
                day.fees_cents,
                day.refunds_cents,
                day.disputes_cents,
                day.payments,
                day.failed_payments,
            ];
            (day.day.to_owned(), expected.currency.to_owned(), figures)
        })
        .collect();
    assert_eq!(days, expected_days, "{name}: days");
}

/// The figures worked out by hand, read from the tables.
async fn assert_figures(db: &Transaction<'_>, scenario: &Scenario, shape: Shape, name: &str) {
    let expected = scenario.expected();
    assert_payments(db, &expected, shape, name).await;
    assert_days(db, &expected, shape, name).await;

    let mrr: i64 = db
        .query_one(
            "SELECT COALESCE(sum(mrr_microcents), 0)::bigint FROM subscriptions",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(
        (mrr + 500_000) / 1_000_000,
        expected.mrr_cents,
        "{name}: MRR"
    );

    let movements: Vec<(String, i64)> = db
        .query(
            "SELECT kind, round(delta_microcents / 1000000.0)::bigint FROM mrr_movements
             ORDER BY occurred_at, id",
            &[],
        )
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    let expected_movements: Vec<(String, i64)> = expected
        .movements
        .iter()
        .map(|(kind, delta)| ((*kind).to_owned(), *delta))
        .collect();
    assert_eq!(movements, expected_movements, "{name}: movements");

    let invoices: Vec<(String, String)> = db
        .query(
            "SELECT invoice_number, status FROM invoices ORDER BY invoice_number",
            &[],
        )
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    let mut expected_invoices: Vec<(String, String)> = expected
        .invoices
        .iter()
        .map(|(n, status)| (n.clone(), (*status).to_owned()))
        .collect();
    expected_invoices.sort();
    assert_eq!(invoices, expected_invoices, "{name}: invoices");

    let plan: String = db
        .query_one("SELECT plan FROM users WHERE id = $1", &[&scenario.user_id])
        .await
        .unwrap()
        .get(0);
    assert_eq!(plan, expected.plan, "{name}: users.plan");
}

#[tokio::test]
async fn any_order_ends_in_the_same_rows_in_2020_08_27() {
    any_order_ends_in_the_same_rows(Shape::V2020_08_27).await;
}

#[tokio::test]
async fn any_order_ends_in_the_same_rows_in_2022_11_15() {
    any_order_ends_in_the_same_rows(Shape::V2022_11_15).await;
}

#[tokio::test]
async fn any_order_ends_in_the_same_rows_in_basil() {
    any_order_ends_in_the_same_rows(Shape::Basil).await;
}

#[tokio::test]
async fn any_order_ends_in_the_same_rows_in_endive() {
    any_order_ends_in_the_same_rows(Shape::Endive).await;
}

const SANDBOXES: usize = 8;

async fn concurrent_deliveries_end_in_the_same_rows(shape: Shape) {
    deliveries_at_once_end_in_the_same_rows(shape, Webhook::start(SANDBOXES).await).await;
}

/// Every event of every scenario twice, all at once, over several sandboxes: the same rows as one
/// after the other.
async fn deliveries_at_once_end_in_the_same_rows(shape: Shape, webhook: Webhook) {
    let (_database, mut client) = database_with_users().await;
    let transaction = client.transaction().await.unwrap();
    for scenario in scenarios() {
        apply_all(&transaction, &read(scenario.events(shape))).await;
    }
    let expected = ledger_rows(&transaction).await.unwrap();
    let unmatched = unmatched_parts(&transaction).await.unwrap();
    assert_eq!(unmatched, Vec::<String>::new());

    let db = webhook.database.client().await;
    for scenario in scenarios() {
        let user =
            "INSERT INTO users (id, email, full_name) VALUES ($1, 'buyer@example.com', 'Buyer')";
        db.execute(user, &[&scenario.user_id]).await.unwrap();
    }
    let mut queues: Vec<Vec<Value>> = vec![Vec::new(); SANDBOXES];
    let deliveries = scenarios().into_iter().flat_map(|scenario| {
        let events = scenario.events(shape);
        events.clone().into_iter().chain(events)
    });
    for (number, event) in deliveries.enumerate() {
        queues[number % SANDBOXES].push(event);
    }
    let mut running = Vec::new();
    for (number, queue) in queues.into_iter().enumerate() {
        let sandbox = webhook.sandbox(number);
        running.push(tokio::spawn(async move {
            let mut parked = Vec::new();
            for event in queue {
                let (status, answer) = bundle::deliver(&sandbox, event.to_string()).await;
                assert_eq!(status, 200, "{answer}");
                match answer["outcome"].as_str() {
                    Some("applied" | "duplicate" | "ignored") => {}
                    Some("parked") => parked.push(event),
                    other => panic!("{other:?} in {answer}"),
                }
            }
            parked
        }));
    }
    // On a busy machine a lock may take longer than a second; the redrive applies what was parked for that.
    let mut parked = Vec::new();
    for task in running {
        for event in task.await.unwrap() {
            let id = event["id"].as_str().unwrap().to_owned();
            let reason = webhook.parked_because(&id).await.unwrap();
            if reason.contains("55P03") || reason.contains("there was no answer within") {
                let again = bundle::deliver(&webhook.sandbox(0), event.to_string()).await;
                assert_eq!(again.0, 200, "{id}: {again:?}");
                assert_ne!(again.1["outcome"], "parked", "{id}: {again:?}");
            } else {
                parked.push((id, reason));
            }
        }
    }
    assert_eq!(parked, [], "nothing else may be parked");
    let name = format!("concurrent deliveries in {shape:?}");
    let checks = Checks::prepare(&db).await;
    checks.assert(&db, &expected, &[], &name).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_through_a_pooler_end_in_the_same_rows() {
    let surroundings = bundle::surroundings().await;
    if let Some(pooler) = Pooler::start(&surroundings.database) {
        let environment = surroundings.environment(&[("DATABASE_URL", &pooler.url())]);
        let webhook = Webhook::of(surroundings, &environment, SANDBOXES);
        deliveries_at_once_end_in_the_same_rows(Shape::Endive, webhook).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_deliveries_end_in_the_same_rows_in_2020_08_27() {
    concurrent_deliveries_end_in_the_same_rows(Shape::V2020_08_27).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_deliveries_end_in_the_same_rows_in_2022_11_15() {
    concurrent_deliveries_end_in_the_same_rows(Shape::V2022_11_15).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_deliveries_end_in_the_same_rows_in_basil() {
    concurrent_deliveries_end_in_the_same_rows(Shape::Basil).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_deliveries_end_in_the_same_rows_in_endive() {
    concurrent_deliveries_end_in_the_same_rows(Shape::Endive).await;
}

/// The objects as they stood after these events, as a fetch would have answered them.
fn objects_after(events: &[Value]) -> Vec<Value> {
    let mut objects: Vec<Value> = Vec::new();
    for event in events {
        let object = &event["data"]["object"];
        let kind = object["object"].as_str().unwrap_or_default();
        if object["id"].is_null() || kind == "product" {
            continue;
        }
        objects.retain(|known| known["id"] != object["id"]);
        objects.push(object.clone());
    }
    objects
}

/// What reaches the ledger: an event, or an object fetched at an instant.
#[derive(Clone)]
enum Told {
    Event(Box<(Event, String)>),
    Fetched(Value, Timestamp),
}

impl Told {
    async fn apply(&self, db: &Transaction<'_>) {
        match self {
            Told::Event(event) => apply_all(db, std::slice::from_ref(event)).await,
            Told::Fetched(object, at) => {
                let objects = std::slice::from_ref(object);
                if let Err(error) = apply_fetched(db, objects, *at, FEES).await {
                    panic!("{object}: {}", runtime::telemetry::cause_chain(&error));
                }
            }
        }
    }

    fn name(&self) -> String {
        match self {
            Told::Event(event) => format!("{} {}", event.0.event_type, event.0.event_id),
            Told::Fetched(object, at) => format!("{} fetched at {at}", object["id"]),
        }
    }
}

/// Every object is fetched twice: where it stood half-way, and at the end. The first fetch is of a
/// second in which there was an event.
async fn fetches_join_the_events_in_any_order(shape: Shape) {
    let seed = seed();
    let (_database, mut client) = database_with_users().await;
    for scenario in scenarios() {
        let mut random = StdRng::seed_from_u64(seed);
        let events = scenario.events(shape);
        let half = events.len() / 2;
        let mut story: Vec<Told> = Vec::new();
        for (told, later) in [(&events[..half], 0), (&events[..], 1)] {
            let Some(second) = told.last().and_then(|event| event["created"].as_i64()) else {
                continue;
            };
            let at = Timestamp::from_second(second + later).unwrap();
            let objects = objects_after(told).into_iter();
            story.extend(objects.map(|object| Told::Fetched(object, at)));
        }
        let fetched = story.len();
        story.extend(
            read(events)
                .into_iter()
                .map(|event| Told::Event(Box::new(event))),
        );
        let mut expected = None;
        for _ in 0..ORDERS_WITH_FETCHES {
            let transaction = client.transaction().await.unwrap();
            for told in &story {
                told.apply(&transaction).await;
            }
            let rows = ledger_rows(&transaction).await.unwrap();
            let unmatched = unmatched_parts(&transaction).await.unwrap();
            assert_eq!(unmatched, Vec::<String>::new());
            let expected = expected.get_or_insert_with(|| rows.clone());
            let (missing, extra) = differing_rows(expected, &rows);
            let order: Vec<String> = story.iter().map(Told::name).collect();
            assert!(
                missing.is_empty() && extra.is_empty(),
                "{} in {shape:?}, CONVERGENCE_SEED={seed}\nmissing {missing:#?}\nextra {extra:#?}\norder {order:#?}",
                scenario.name
            );
            let unexplained = transaction.query_one(UNEXPLAINED_DAYS, &[]).await.unwrap();
            assert_eq!(unexplained.get::<_, i64>(0), 0, "{}", scenario.name);
            transaction.rollback().await.unwrap();
            story.shuffle(&mut random);
        }
        assert!(fetched > 0, "{} fetches something", scenario.name);
    }
}

#[tokio::test]
async fn any_order_of_events_and_fetches_ends_in_the_same_rows_in_2020_08_27() {
    fetches_join_the_events_in_any_order(Shape::V2020_08_27).await;
}

#[tokio::test]
async fn any_order_of_events_and_fetches_ends_in_the_same_rows_in_endive() {
    fetches_join_the_events_in_any_order(Shape::Endive).await;
}

/// The rows of every sequence in every shape, as a digest of each table: who changes what an event means, changes the file
/// in the same commit (`UPDATE_DIGESTS=1 cargo test -p webhook --test suite digests`).
#[tokio::test]
async fn digests_of_every_sequence_are_those_on_record() {
    let (_database, mut client) = database_with_users().await;
    let mut found = String::new();
    for scenario in scenarios() {
        for shape in Shape::ALL {
            let transaction = client.transaction().await.unwrap();
            apply_all(&transaction, &read(scenario.events(shape))).await;
            let rows = ledger_rows(&transaction).await.unwrap();
            let unmatched = unmatched_parts(&transaction).await.unwrap();
            assert_eq!(unmatched, Vec::<String>::new());
            transaction.rollback().await.unwrap();
            let mut tables: BTreeMap<&str, Sha256> = BTreeMap::new();
            for row in &rows {
                let (table, _) = row.split_once(' ').unwrap();
                tables.entry(table).or_default().update(row);
            }
            found += &format!("{} in {shape:?}\n", scenario.name);
            for (table, digest) in tables {
                let digest = hex::encode(digest.finalize());
                found += &format!("  {table} {}\n", &digest[..16]);
            }
        }
    }
    let file = testing::workspace_root().join("functions/webhook/tests/suite/digests.txt");
    if Environment::from_process().optional("UPDATE_DIGESTS") == Some("1".to_owned()) {
        std::fs::write(&file, &found).unwrap();
    }
    let known = std::fs::read_to_string(&file).unwrap_or_default();
    let differing = known
        .lines()
        .zip(found.lines())
        .find(|(known, found)| known != found);
    assert!(
        known == found,
        "the rows of a sequence have changed: {differing:?}"
    );
}

/// The functions plan without scans where there is an index, whatever the size of a table when they are planned. What is
/// scanned all the same lacks one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_event_reads_a_table_whole() {
    let (database, mut client) = database_with_users().await;
    // What is in no function is planned by the size of its tables, and these are small.
    client
        .batch_execute("SET enable_seqscan = off")
        .await
        .unwrap();
    let transaction = client.transaction().await.unwrap();
    for scenario in scenarios() {
        apply_all(&transaction, &read(scenario.events(Shape::Endive))).await;
    }
    transaction.commit().await.unwrap();
    client
        .batch_execute("SELECT pg_stat_force_next_flush()")
        .await
        .unwrap();
    let scanned = "SELECT relname::text, seq_scan FROM pg_stat_user_tables WHERE seq_scan > 0 ORDER BY relname";
    let rows = database.client().await.query(scanned, &[]).await.unwrap();
    let scanned: Vec<(String, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    // A handful of rows that an operator has set.
    let scanned: Vec<_> = scanned
        .iter()
        .filter(|(table, _)| !matches!(table.as_str(), "plan_prices" | "plan_limits"))
        .collect();
    assert!(scanned.is_empty(), "{scanned:?}");
}
