//! Objects and events as JSON, in each API shape: the only place of the fake that knows shapes.

use jiff::Timestamp;
use serde_json::{Map, Number, Value, json};

use super::Shape;
use super::objects::{
    BalanceTransaction, Charge, Coupon, CreditNote, Customer, Decline, Discount, Dispute, Invoice,
    InvoiceItem, InvoicePayment, Item, Line, Metadata, Object, PaymentIntent, PaymentOfInvoice,
    PaymentRecord, Payout, Price, Product, Refund, Session, Subscription, TaxRate,
};

/// How many lines an invoice shows inline; the rest have to be listed.
pub(super) const INLINE_LINES: usize = 10;

impl Object {
    /// The object in `shape`, nothing expanded: what a webhook carries.
    #[must_use]
    pub fn render(&self, shape: Shape) -> Value {
        match self {
            Object::Product(product) => render_product(product),
            Object::Price(price) => render_price(price, shape),
            Object::Coupon(coupon) => render_coupon(coupon),
            Object::Discount(discount) => render_discount(discount, shape),
            Object::Customer(customer) => render_customer(customer, shape),
            Object::Subscription(subscription) => render_subscription(subscription, shape),
            Object::Invoice(invoice) => render_invoice(invoice, shape),
            Object::InvoiceItem(item) => render_invoice_item(item, shape),
            Object::InvoicePayment(payment) => render_invoice_payment(payment),
            Object::PaymentRecord(record) => render_payment_record(record),
            Object::PaymentIntent(intent, charges) => render_intent(intent, charges, shape),
            Object::Charge(charge) => render_charge(charge, shape),
            Object::Refund(refund) => render_refund(refund, shape),
            Object::Dispute(dispute) => render_dispute(dispute, shape),
            Object::BalanceTransaction(transaction) => {
                render_balance_transaction(transaction, shape)
            }
            Object::Payout(payout) => render_payout(payout, shape),
            Object::TaxRate(rate) => render_tax_rate(rate),
            Object::CreditNote(note) => render_credit_note(note, shape),
            Object::Session(session) => render_session(session, shape),
        }
    }
}

impl Object {
    /// The object as the API answers it: like [`Object::render`], but a deleted customer is only
    /// a tombstone.
    pub(super) fn answer(&self, shape: Shape) -> Value {
        if let Object::Customer(customer) = self
            && customer.deleted
        {
            return json!({"id": customer.id, "object": "customer", "deleted": true});
        }
        self.render(shape)
    }
}

/// Adds the fields of `more` to `object`.
fn extend(object: &mut Value, more: Value) {
    if let (Value::Object(fields), Value::Object(more)) = (object, more) {
        fields.extend(more);
    }
}

/// A list that holds all it has, as Stripe wraps it.
/// A list inside an object: the first ten.
pub(super) fn list(url: String, mut data: Vec<Value>) -> Value {
    let total = data.len();
    data.truncate(INLINE_LINES);
    json!({
        "object": "list", "data": data, "has_more": total > INLINE_LINES, "total_count": total,
        "url": url,
    })
}

fn metadata(metadata: &Metadata) -> Value {
    metadata
        .iter()
        .map(|(key, value)| (key.clone(), Value::String(value.clone())))
        .collect::<Map<_, _>>()
        .into()
}

/// A decimal number from its integer value and number of decimals, without a float in sight:
/// `decimal(255, 1)` is `25.5`.
fn decimal(value: i64, decimals: u32) -> Value {
    let scale = 10_i64.pow(decimals);
    let (whole, rest) = (value / scale, (value % scale).abs());
    if rest == 0 {
        return whole.into();
    }
    let digits = format!(
        "{rest:0width$}",
        width = usize::try_from(decimals).unwrap_or(0)
    );
    format!("{whole}.{}", digits.trim_end_matches('0'))
        .parse::<Number>()
        .map_or(Value::Null, Value::Number)
}

fn render_product(product: &Product) -> Value {
    json!({
        "id": product.id, "object": "product", "active": true, "created": product.created,
        "description": null, "images": [], "livemode": false, "marketing_features": [],
        "metadata": {},
        "name": product.name, "shippable": null, "statement_descriptor": null, "tax_code": null,
        "type": "service", "unit_label": null, "updated": product.created, "url": null,
    })
}

fn render_price(price: &Price, shape: Shape) -> Value {
    let mut recurring = Value::Null;
    if let Some(interval) = &price.interval {
        recurring = json!({
            "interval": interval, "interval_count": price.interval_count,
            "trial_period_days": null, "usage_type": "licensed",
        });
        if shape >= Shape::Basil {
            extend(&mut recurring, json!({"meter": null}));
        } else {
            extend(&mut recurring, json!({"aggregate_usage": null}));
        }
    }
    let tiered = price.tiers.is_some();
    let mut value = json!({
        "id": price.id, "object": "price", "active": price.active,
        "billing_scheme": if tiered { "tiered" } else { "per_unit" },
        "created": price.created, "currency": price.currency, "livemode": false,
        "lookup_key": price.lookup_key, "metadata": metadata(&price.metadata),
        "nickname": price.nickname, "product": price.product, "recurring": recurring,
        "tax_behavior": "unspecified", "tiers_mode": price.tiers.as_ref().map(|(mode, _)| mode),
        "transform_quantity": null,
        "type": if price.interval.is_some() { "recurring" } else { "one_time" },
        "unit_amount": (!tiered).then_some(price.unit_amount),
        "unit_amount_decimal": (!tiered).then(|| price.unit_amount.to_string()),
    });
    if shape >= Shape::V2022_11_15 {
        extend(&mut value, json!({"custom_unit_amount": null}));
    }
    value
}

/// The tiers of a price, which are shown on `expand[]=tiers` only.
pub(super) fn render_tiers(price: &Price) -> Option<Value> {
    let (_, tiers) = price.tiers.as_ref()?;
    Some(
        tiers
            .iter()
            .map(|tier| {
                json!({
                    "flat_amount": tier.flat_amount,
                    "flat_amount_decimal": tier.flat_amount.to_string(),
                    "unit_amount": tier.unit_amount,
                    "unit_amount_decimal": tier.unit_amount.to_string(),
                    "up_to": tier.up_to,
                })
            })
            .collect(),
    )
}

/// The legacy twin of a recurring price.
fn render_plan(price: &Price) -> Value {
    let Some(interval) = &price.interval else {
        return Value::Null;
    };
    let tiered = price.tiers.is_some();
    json!({
        "id": price.id, "object": "plan", "active": price.active, "aggregate_usage": null,
        "amount": (!tiered).then_some(price.unit_amount),
        "amount_decimal": (!tiered).then(|| price.unit_amount.to_string()),
        "billing_scheme": if tiered { "tiered" } else { "per_unit" },
        "created": price.created, "currency": price.currency, "interval": interval,
        "interval_count": price.interval_count, "livemode": false,
        "metadata": metadata(&price.metadata), "nickname": price.nickname,
        "product": price.product, "tiers_mode": price.tiers.as_ref().map(|(mode, _)| mode),
        "transform_usage": null, "trial_period_days": null, "usage_type": "licensed",
    })
}

fn render_coupon(coupon: &Coupon) -> Value {
    json!({
        "id": coupon.id, "object": "coupon", "amount_off": coupon.amount_off,
        "created": coupon.created, "currency": coupon.currency, "duration": coupon.duration,
        "duration_in_months": coupon.duration_in_months, "livemode": false,
        "max_redemptions": null, "metadata": {}, "name": coupon.name,
        "percent_off": coupon.percent_off_bps.map(|bps| decimal(bps, 2)),
        "redeem_by": null, "times_redeemed": 0, "valid": true,
    })
}

fn render_discount(discount: &Discount, shape: Shape) -> Value {
    let mut value = json!({
        "id": discount.id, "object": "discount", "checkout_session": null,
        "customer": discount.customer, "end": discount.end, "invoice": null,
        "invoice_item": null, "promotion_code": null, "start": discount.start,
        "subscription": discount.subscription,
    });
    if shape >= Shape::Basil {
        extend(&mut value, json!({"subscription_item": null}));
    }
    if shape >= Shape::Endive {
        extend(
            &mut value,
            json!({"source": {"coupon": discount.coupon.id, "type": "coupon"}}),
        );
    } else {
        extend(
            &mut value,
            json!({"coupon": render_coupon(&discount.coupon)}),
        );
    }
    value
}

fn render_customer(customer: &Customer, shape: Shape) -> Value {
    let discount = customer
        .discount
        .as_ref()
        .map(|one| render_discount(one, shape));
    json!({
        "id": customer.id, "object": "customer", "address": null, "balance": 0,
        "created": customer.created, "currency": customer.currency, "default_source": null,
        "delinquent": customer.delinquent, "description": null, "discount": discount,
        "email": customer.email, "invoice_prefix": customer.invoice_prefix,
        "invoice_settings": {
            "custom_fields": null, "default_payment_method": null, "footer": null,
            "rendering_options": null,
        },
        "livemode": false, "metadata": metadata(&customer.metadata), "name": customer.name,
        "next_invoice_sequence": customer.next_invoice_sequence, "phone": null,
        "preferred_locales": [], "shipping": null, "tax_exempt": "none", "test_clock": null,
    })
}

pub(super) fn render_subscription_item(
    subscription: &Subscription,
    item: &Item,
    shape: Shape,
) -> Value {
    let mut value = json!({
        "id": item.id, "object": "subscription_item", "billing_thresholds": null,
        "created": item.created, "metadata": {}, "plan": render_plan(&item.price),
        "price": render_price(&item.price, shape), "quantity": item.quantity,
        "subscription": subscription.id, "tax_rates": [],
    });
    if shape >= Shape::Basil {
        extend(
            &mut value,
            json!({
                "current_period_end": subscription.current_period_end,
                "current_period_start": subscription.current_period_start,
                "discounts": [],
            }),
        );
    }
    value
}

fn render_subscription(subscription: &Subscription, shape: Shape) -> Value {
    let items = subscription.items.iter();
    let items: Vec<Value> = items
        .map(|item| render_subscription_item(subscription, item, shape))
        .collect();
    let mut value = json!({
        "id": subscription.id, "object": "subscription", "application_fee_percent": null,
        "automatic_tax": {"enabled": false},
        "billing_cycle_anchor": subscription.billing_cycle_anchor, "billing_thresholds": null,
        "cancel_at": subscription.cancel_at,
        "cancel_at_period_end": subscription.cancel_at_period_end,
        "canceled_at": subscription.canceled_at,
        "collection_method": subscription.collection_method, "created": subscription.created,
        "customer": subscription.customer,
        "days_until_due": (subscription.collection_method == "send_invoice").then_some(30),
        "default_payment_method": null, "default_source": null, "default_tax_rates": [],
        "ended_at": subscription.ended_at,
        "items": list(format!("/v1/subscription_items?subscription={}", subscription.id), items),
        "latest_invoice": subscription.latest_invoice, "livemode": false,
        "metadata": metadata(&subscription.metadata),
    });
    extend(
        &mut value,
        json!({
            "next_pending_invoice_item_invoice": null,
            "pause_collection": subscription.pause_behavior.as_ref().map(
                |behavior| json!({"behavior": behavior, "resumes_at": null})
            ),
            "pending_invoice_item_interval": null, "pending_setup_intent": null,
            "pending_update": null, "schedule": null, "start_date": subscription.created,
            "status": subscription.status, "test_clock": null, "transfer_data": null,
            "trial_end": subscription.trial_end, "trial_start": subscription.trial_start,
        }),
    );
    let single = match subscription.items.as_slice() {
        [item] => Some(item),
        _ => None,
    };
    if shape < Shape::Basil {
        extend(
            &mut value,
            json!({
                "current_period_end": subscription.current_period_end,
                "current_period_start": subscription.current_period_start,
                "discount": subscription.discounts.first().map(|one| render_discount(one, shape)),
                "plan": single.map(|item| render_plan(&item.price)),
                "quantity": single.map(|item| item.quantity),
            }),
        );
    } else {
        let ids: Vec<&str> = subscription
            .discounts
            .iter()
            .map(|one| one.id.as_str())
            .collect();
        extend(
            &mut value,
            json!({
                "application": null, "billing_cycle_anchor_config": null, "discounts": ids,
                "invoice_settings": {"account_tax_ids": null, "issuer": {"type": "self"}},
                "payment_settings": {
                    "payment_method_options": null, "payment_method_types": null,
                    "save_default_payment_method": "off",
                },
            }),
        );
    }
    if shape >= Shape::V2022_11_15 {
        extend(
            &mut value,
            json!({
                "cancellation_details": {
                    "comment": null, "feedback": null, "reason": subscription.cancellation_reason,
                },
                "currency": subscription.currency, "description": null, "on_behalf_of": null,
                "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
            }),
        );
    }
    if shape >= Shape::Endive {
        extend(
            &mut value,
            json!({"billing_mode": {"flexible": null, "type": "classic"}}),
        );
    }
    value
}

/// One line of an invoice.
pub(super) fn render_line(of: &Invoice, line: &Line, shape: Shape) -> Value {
    let discounts: Vec<Value> = line
        .discount
        .iter()
        .map(|(id, amount)| json!({"amount": amount, "discount": id}))
        .collect();
    let mut value = json!({
        "id": line.id, "object": "line_item", "amount": line.amount, "currency": of.currency,
        "description": line.description, "discount_amounts": discounts, "discountable": true,
        "discounts": [], "livemode": false, "metadata": {},
        "period": {"end": line.period_end, "start": line.period_start},
        "quantity": line.quantity,
    });
    if shape >= Shape::Basil {
        let proration = json!({"credited_items": null});
        let parent = if line.subscription_item.is_some() && line.invoice_item.is_none() {
            json!({
                "invoice_item_details": null,
                "subscription_item_details": {
                    "invoice_item": line.invoice_item, "proration": line.proration,
                    "proration_details": proration, "subscription": line.subscription,
                    "subscription_item": line.subscription_item,
                },
                "type": "subscription_item_details",
            })
        } else {
            json!({
                "invoice_item_details": {
                    "invoice_item": line.invoice_item, "proration": line.proration,
                    "proration_details": proration, "subscription": line.subscription,
                },
                "subscription_item_details": null,
                "type": "invoice_item_details",
            })
        };
        let pricing = line.price.as_ref().map(|price| {
            json!({
                "price_details": {"price": price.id, "product": price.product},
                "type": "price_details",
                "unit_amount_decimal": price.unit_amount.to_string(),
            })
        });
        let taxes = tax_amounts(line.tax, line_net(line), &of.tax_rate, shape);
        extend(
            &mut value,
            json!({
                "invoice": of.id, "parent": parent, "pretax_credit_amounts": [],
                "pricing": pricing, "taxes": taxes,
            }),
        );
    } else {
        extend(
            &mut value,
            json!({
                "plan": line.price.as_ref().map(render_plan),
                "price": line.price.as_ref().map(|price| render_price(price, shape)),
                "proration": line.proration, "proration_details": {"credited_items": null},
                "subscription": line.subscription,
                "tax_amounts": tax_amounts(line.tax, line_net(line), &of.tax_rate, shape),
                "tax_rates": [],
                "type": if line.subscription_item.is_some() && line.invoice_item.is_none() {
                    "subscription"
                } else {
                    "invoiceitem"
                },
            }),
        );
        if let Some(item) = &line.subscription_item {
            extend(&mut value, json!({"subscription_item": item}));
        }
        if let Some(item) = &line.invoice_item {
            extend(&mut value, json!({"invoice_item": item}));
        }
    }
    value
}

/// What a line's tax is computed on.
fn line_net(line: &Line) -> i64 {
    line.amount - line.discount.as_ref().map_or(0, |(_, amount)| *amount)
}

fn tax_amounts(tax: i64, taxable: i64, rate: &Option<String>, shape: Shape) -> Vec<Value> {
    if tax == 0 {
        return Vec::new();
    }
    vec![if shape >= Shape::Basil {
        json!({
            "amount": tax, "tax_behavior": "exclusive",
            "tax_rate_details": {"tax_rate": rate},
            "taxability_reason": "standard_rated", "taxable_amount": taxable,
            "type": "tax_rate_details",
        })
    } else {
        json!({"amount": tax, "inclusive": false, "tax_rate": rate})
    }]
}

fn render_invoice(invoice: &Invoice, shape: Shape) -> Value {
    let lines: Vec<Value> = invoice
        .lines
        .iter()
        .take(INLINE_LINES)
        .map(|line| render_line(invoice, line, shape))
        .collect();
    let discount_ids: Vec<&str> = invoice
        .discounts
        .iter()
        .map(|one| one.id.as_str())
        .collect();
    let discount_amounts: Vec<Value> = invoice
        .discounts
        .first()
        .map(|one| json!({"amount": invoice.discount_total, "discount": one.id}))
        .into_iter()
        .collect();
    let paid = invoice.status == "paid";
    // Before basil what came outside Stripe was left out of the paid amount.
    let amount_paid = if shape < Shape::Basil {
        invoice.amount_paid - invoice.outside
    } else {
        invoice.amount_paid
    };
    let finalized = invoice.finalized_at.is_some();
    let mut value = json!({
        "id": invoice.id, "object": "invoice", "account_country": "US",
        "account_name": "DeedPro", "account_tax_ids": null, "amount_due": invoice.amount_due,
        "amount_paid": amount_paid, "amount_remaining": invoice.amount_due - amount_paid,
        "attempt_count": invoice.attempt_count,
        "attempted": invoice.attempt_count > 0 || paid,
        "auto_advance": invoice.status == "draft" || invoice.next_payment_attempt.is_some(),
        "automatic_tax": {"enabled": false, "status": null},
        "billing_reason": invoice.billing_reason,
        "collection_method": invoice.collection_method, "created": invoice.created,
        "currency": invoice.currency, "custom_fields": null, "customer": invoice.customer,
        "customer_address": null, "customer_email": invoice.customer_email,
        "customer_name": invoice.customer_name, "customer_phone": null,
        "customer_shipping": null, "customer_tax_exempt": "none", "customer_tax_ids": [],
    });
    extend(
        &mut value,
        json!({
            "default_payment_method": null, "default_source": null, "default_tax_rates": [],
            "description": null, "discounts": discount_ids, "due_date": invoice.due_date,
            "ending_balance": finalized.then_some(0), "footer": null,
            "hosted_invoice_url": finalized
                .then(|| format!("https://invoice.example.com/i/{}", invoice.id)),
            "invoice_pdf": finalized
                .then(|| format!("https://invoice.example.com/i/{}/pdf", invoice.id)),
            "last_finalization_error": null,
            "livemode": false, "metadata": metadata(&invoice.metadata),
            "next_payment_attempt": invoice.next_payment_attempt, "number": invoice.number,
            "payment_settings": {"payment_method_options": null, "payment_method_types": null},
            "period_end": invoice.period_end, "period_start": invoice.period_start,
            "post_payment_credit_notes_amount": invoice.post_payment_credit,
            "pre_payment_credit_notes_amount": invoice.pre_payment_credit,
            "receipt_number": null, "starting_balance": 0, "statement_descriptor": null,
            "status": invoice.status,
        }),
    );
    extend(
        &mut value,
        json!({
            "lines": {
                "object": "list", "data": lines,
                "has_more": invoice.lines.len() > INLINE_LINES,
                "total_count": invoice.lines.len(),
                "url": format!("/v1/invoices/{}/lines", invoice.id),
            },
            "status_transitions": {
                "finalized_at": invoice.finalized_at,
                "marked_uncollectible_at": invoice.uncollectible_at,
                "paid_at": invoice.paid_at, "voided_at": invoice.voided_at,
            },
            "subtotal": invoice.subtotal, "test_clock": null, "total": invoice.total,
            "total_discount_amounts": discount_amounts,
            "webhooks_delivered_at": finalized.then_some(invoice.created),
        }),
    );
    let taxes = tax_amounts(
        invoice.tax_total,
        invoice.subtotal - invoice.discount_total,
        &invoice.tax_rate,
        shape,
    );
    if shape < Shape::Basil {
        extend(
            &mut value,
            json!({
                "application_fee_amount": null, "charge": invoice.charge,
                "discount": invoice.discounts.first().map(|one| render_discount(one, shape)),
                "paid": paid, "paid_out_of_band": paid && invoice.outside > 0,
                "payment_intent": invoice.payment_intent, "quote": null,
                "subscription": invoice.subscription,
                "tax": (invoice.tax_total != 0).then_some(invoice.tax_total),
                "total_tax_amounts": taxes, "transfer_data": null,
            }),
        );
    } else {
        let parent = invoice.subscription.as_ref().map(|subscription| {
            json!({
                "quote_details": null,
                "subscription_details": {
                    "metadata": metadata(&invoice.subscription_metadata),
                    "subscription": subscription,
                },
                "type": "subscription_details",
            })
        });
        extend(
            &mut value,
            json!({
                "amount_overpaid": 0, "parent": parent, "automatically_finalizes_at": null,
                "effective_at": invoice.finalized_at, "issuer": {"type": "self"},
                "rendering": null, "total_pretax_credit_amounts": [],
                "total_taxes": taxes,
            }),
        );
    }
    if shape >= Shape::V2022_11_15 {
        extend(
            &mut value,
            json!({
                "amount_shipping": 0, "application": null, "from_invoice": null,
                "latest_revision": null, "on_behalf_of": null, "shipping_cost": null,
                "shipping_details": null, "subtotal_excluding_tax": invoice.subtotal,
                "total_excluding_tax": invoice.total - invoice.tax_total,
            }),
        );
    }
    value
}

fn render_invoice_item(item: &InvoiceItem, shape: Shape) -> Value {
    let mut value = json!({
        "id": item.id, "object": "invoiceitem", "amount": item.line.amount,
        "currency": item.currency, "customer": item.customer, "date": item.created,
        "description": item.line.description, "discountable": !item.line.proration,
        "discounts": [], "invoice": item.invoice, "livemode": false, "metadata": {},
        "period": {"end": item.line.period_end, "start": item.line.period_start},
        "proration": item.line.proration, "quantity": item.line.quantity, "tax_rates": [],
        "test_clock": null,
    });
    if shape >= Shape::Basil {
        let pricing = item.line.price.as_ref().map(|price| {
            json!({
                "price_details": {"price": price.id, "product": price.product},
                "type": "price_details",
                "unit_amount_decimal": price.unit_amount.to_string(),
            })
        });
        let parent = item.subscription.as_ref().map(|subscription| {
            json!({
                "subscription_details": {
                    "subscription": subscription,
                    "subscription_item": item.line.subscription_item,
                },
                "type": "subscription_details",
            })
        });
        extend(&mut value, json!({"parent": parent, "pricing": pricing}));
    } else {
        extend(
            &mut value,
            json!({
                "plan": item.line.price.as_ref().map(render_plan),
                "price": item.line.price.as_ref().map(|price| render_price(price, shape)),
                "subscription": item.subscription, "unit_amount": item.line.amount,
                "unit_amount_decimal": item.line.amount.to_string(),
            }),
        );
    }
    value
}

fn render_invoice_payment(payment: &InvoicePayment) -> Value {
    let paid_with = match &payment.payment {
        PaymentOfInvoice::Intent(id) => json!({"payment_intent": id, "type": "payment_intent"}),
        PaymentOfInvoice::Record(id) => json!({"payment_record": id, "type": "payment_record"}),
    };
    json!({
        "id": payment.id, "object": "invoice_payment",
        "amount_paid": (payment.status == "paid").then_some(payment.amount),
        "amount_requested": payment.amount, "created": payment.created,
        "currency": payment.currency, "invoice": payment.invoice, "is_default": payment.is_default,
        "livemode": false, "payment": paid_with, "status": payment.status,
        "status_transitions": {
            "canceled_at": (payment.status == "canceled").then_some(payment.created),
            "paid_at": payment.paid_at,
        },
    })
}

fn render_payment_record(record: &PaymentRecord) -> Value {
    let amount = |value: i64| json!({"currency": record.currency, "value": value});
    json!({
        "id": record.id, "object": "payment_record", "amount": amount(record.amount),
        "amount_authorized": amount(0), "amount_canceled": amount(0), "amount_failed": amount(0),
        "amount_guaranteed": amount(record.amount), "amount_refunded": amount(0),
        "amount_requested": amount(record.amount), "created": record.created,
        "customer_details": {"customer": record.customer}, "customer_presence": null,
        "description": null, "latest_payment_attempt_record": null, "livemode": false,
        "metadata": {}, "payment_method_details": {"type": "custom"},
        "processor_details": {
            "custom": {"payment_reference": record.reference}, "type": "custom",
        },
        "reported_by": record.reported_by, "shipping_details": null,
    })
}

fn render_decline(decline: &Decline, charge: Option<&str>) -> Value {
    json!({
        "charge": charge, "code": decline.code, "decline_code": decline.decline_code,
        "doc_url": "https://stripe.com/docs/error-codes/card-declined",
        "message": decline.message, "type": "card_error",
    })
}

fn render_intent(intent: &PaymentIntent, charges: &[Charge], shape: Shape) -> Value {
    let latest = intent.charges.last().map(String::as_str);
    let mut value = json!({
        "id": intent.id, "object": "payment_intent", "amount": intent.amount,
        "amount_capturable": 0, "amount_received": intent.amount_received, "application": null,
        "application_fee_amount": null, "automatic_payment_methods": null,
        "canceled_at": intent.canceled_at,
        "cancellation_reason": intent.canceled_at.map(|_| "void_invoice"),
        "capture_method": if shape >= Shape::Basil { "automatic_async" } else { "automatic" },
        "client_secret": format!("{}_secret_fake", intent.id),
        "confirmation_method": "automatic", "created": intent.created,
        "currency": intent.currency, "customer": intent.customer,
        "description": intent.description,
        "last_payment_error": intent.last_error.as_ref().map(|one| render_decline(one, latest)),
    });
    extend(
        &mut value,
        json!({
            "livemode": false, "metadata": metadata(&intent.metadata), "next_action": null,
            "on_behalf_of": null, "payment_method": "pm_1Card", "payment_method_options": {},
            "payment_method_types": ["card"], "processing": null, "receipt_email": null,
            "review": null, "setup_future_usage": null, "shipping": null, "source": null,
            "statement_descriptor": null, "statement_descriptor_suffix": null,
            "status": intent.status, "transfer_data": null, "transfer_group": null,
        }),
    );
    if shape < Shape::Basil {
        extend(&mut value, json!({"invoice": intent.invoice}));
    }
    if shape >= Shape::V2022_11_15 {
        extend(
            &mut value,
            json!({"amount_details": {"tip": {}}, "latest_charge": latest}),
        );
    } else {
        // Newest first, as every list of Stripe's.
        let data = charges
            .iter()
            .rev()
            .map(|charge| render_charge(charge, shape))
            .collect();
        extend(
            &mut value,
            json!({"charges": list(format!("/v1/charges?payment_intent={}", intent.id), data)}),
        );
    }
    value
}

fn render_charge(charge: &Charge, shape: Shape) -> Value {
    let succeeded = charge.status == "succeeded";
    let balance_transaction = if shape >= Shape::Basil && !charge.settled {
        None
    } else {
        charge.balance_transaction.as_deref()
    };
    let mut outcome = if succeeded {
        json!({
            "network_status": "approved_by_network", "reason": null, "risk_level": "normal",
            "seller_message": "Payment complete.", "type": "authorized",
        })
    } else {
        json!({
            "network_status": "declined_by_network",
            "reason": charge.decline.as_ref().map(|one| one.decline_code),
            "risk_level": "normal", "seller_message": "The bank declined the payment.",
            "type": "issuer_declined",
        })
    };
    if shape >= Shape::Basil {
        extend(
            &mut outcome,
            json!({"advice_code": null, "network_advice_code": null, "network_decline_code": null}),
        );
    }
    let mut value = json!({
        "id": charge.id, "object": "charge", "amount": charge.amount,
        "amount_captured": if succeeded { charge.amount } else { 0 },
        "amount_refunded": charge.amount_refunded, "application": null, "application_fee": null,
        "application_fee_amount": null, "balance_transaction": balance_transaction,
        "billing_details": {
            "address": {
                "city": null, "country": "US", "line1": null, "line2": null,
                "postal_code": null, "state": null,
            },
            "email": null, "name": null, "phone": null,
        },
        "calculated_statement_descriptor": "DEEDPRO", "captured": succeeded,
        "created": charge.created, "currency": charge.currency, "customer": charge.customer,
        "description": null, "destination": null, "dispute": null, "disputed": charge.disputed,
        "failure_balance_transaction": charge.failure_balance_transaction,
        "failure_code": charge.decline.as_ref().map(|one| one.code),
        "failure_message": charge.decline.as_ref().map(|one| one.message),
    });
    let method = match charge.method {
        "card" => json!({
            "card": {
                "brand": "visa",
                "checks": {
                    "address_line1_check": null, "address_postal_code_check": null,
                    "cvc_check": "pass",
                },
                "country": "US", "exp_month": 12, "exp_year": 2034, "funding": "credit",
                "installments": null, "last4": "4242", "mandate": null, "network": "visa",
                "three_d_secure": null, "wallet": null,
            },
            "type": "card",
        }),
        other => json!({"type": other, other: {"bank_name": "STRIPE TEST BANK", "last4": "6789"}}),
    };
    extend(
        &mut value,
        json!({
            "fraud_details": {}, "livemode": false, "metadata": metadata(&charge.metadata),
            "on_behalf_of": null, "outcome": outcome, "paid": succeeded,
            "payment_intent": charge.payment_intent, "payment_method": "pm_1Card",
            "payment_method_details": method,
            "receipt_email": null, "receipt_number": null, "receipt_url": null,
            "refunded": succeeded && charge.amount_refunded == charge.amount, "review": null,
            "shipping": null, "source": null, "source_transfer": null,
            "statement_descriptor": null, "statement_descriptor_suffix": null,
            "status": charge.status, "transfer_data": null, "transfer_group": null,
        }),
    );
    if shape < Shape::Basil {
        extend(&mut value, json!({"invoice": charge.invoice}));
    }
    if shape < Shape::V2022_11_15 {
        extend(
            &mut value,
            json!({"refunds": render_refunds(charge, shape)}),
        );
    }
    value
}

/// The refunds of a charge as a list, newest first; shown on `expand[]=refunds` since 2022-11-15.
pub(super) fn render_refunds(charge: &Charge, shape: Shape) -> Value {
    let data = charge
        .refunds
        .iter()
        .rev()
        .map(|refund| render_refund(refund, shape))
        .collect();
    list(format!("/v1/charges/{}/refunds", charge.id), data)
}

fn render_refund(refund: &Refund, shape: Shape) -> Value {
    let mut value = json!({
        "id": refund.id, "object": "refund", "amount": refund.amount,
        "balance_transaction": refund.balance_transaction, "charge": refund.charge,
        "created": refund.created, "currency": refund.currency,
        "metadata": metadata(&refund.metadata), "payment_intent": refund.payment_intent,
        "reason": refund.reason, "receipt_number": null, "source_transfer_reversal": null,
        "status": refund.status, "transfer_reversal": null,
    });
    if let Some(reason) = refund.failure_reason {
        extend(
            &mut value,
            json!({
                "failure_balance_transaction": refund.failure_balance_transaction,
                "failure_reason": reason,
            }),
        );
    }
    if shape >= Shape::Basil {
        extend(
            &mut value,
            json!({
                "destination_details": {
                    "card": {
                        "reference_status": "pending",
                        "reference_type": "acquirer_reference_number", "type": "refund",
                    },
                    "type": "card",
                },
            }),
        );
    }
    value
}

fn render_dispute(dispute: &Dispute, shape: Shape) -> Value {
    let transactions: Vec<Value> = dispute
        .balance_transactions
        .iter()
        .map(|transaction| render_balance_transaction(transaction, shape))
        .collect();
    let mut value = json!({
        "id": dispute.id, "object": "dispute", "amount": dispute.amount,
        "balance_transactions": transactions, "charge": dispute.charge,
        "created": dispute.created, "currency": dispute.currency, "evidence": {},
        "evidence_details": {
            "due_by": dispute.due_by, "has_evidence": dispute.has_evidence, "past_due": false,
            "submission_count": i64::from(dispute.has_evidence),
        },
        "is_charge_refundable": false, "livemode": false, "metadata": {},
        "payment_intent": dispute.payment_intent, "reason": dispute.reason,
        "status": dispute.status,
    });
    if shape >= Shape::Basil {
        extend(
            &mut value,
            json!({
                "enhanced_eligibility_types": [],
                "payment_method_details": {
                    "card": {
                        "brand": "visa", "case_type": "chargeback", "network_reason_code": "10.4",
                    },
                    "type": "card",
                },
            }),
        );
    }
    value
}

fn render_balance_transaction(transaction: &BalanceTransaction, shape: Shape) -> Value {
    let fee_details: Vec<Value> = (transaction.fee != 0)
        .then(|| {
            json!({
                "amount": transaction.fee, "application": null, "currency": transaction.currency,
                "description": "Stripe processing fees", "type": "stripe_fee",
            })
        })
        .into_iter()
        .collect();
    let mut value = json!({
        "id": transaction.id, "object": "balance_transaction", "amount": transaction.amount,
        "available_on": transaction.created + 2 * 86_400, "created": transaction.created,
        "currency": transaction.currency, "description": transaction.description,
        "exchange_rate": transaction.exchange_rate_micros.map(|micros| decimal(micros, 6)),
        "fee": transaction.fee, "fee_details": fee_details,
        "net": transaction.amount - transaction.fee,
        "reporting_category": transaction.reporting_category, "source": transaction.source,
        "status": "available", "type": transaction.kind,
    });
    if shape >= Shape::Basil {
        extend(&mut value, json!({"balance_type": "payments"}));
    }
    value
}

fn render_payout(payout: &Payout, shape: Shape) -> Value {
    let mut value = json!({
        "id": payout.id, "object": "payout", "amount": payout.amount,
        "arrival_date": payout.arrival_date, "automatic": payout.automatic,
        "balance_transaction": payout.balance_transaction, "created": payout.created,
        "currency": payout.currency, "description": "STRIPE PAYOUT", "destination": "ba_1Bank",
        "failure_balance_transaction": null, "failure_code": null, "failure_message": null,
        "livemode": false, "metadata": {}, "method": "standard", "original_payout": null,
        "reversed_by": null, "source_type": "card", "statement_descriptor": null,
        "status": payout.status, "type": "bank_account",
    });
    if shape >= Shape::Basil {
        extend(
            &mut value,
            json!({
                "reconciliation_status": payout.reconciliation_status,
                "trace_id": null,
            }),
        );
    }
    value
}

fn render_tax_rate(rate: &TaxRate) -> Value {
    json!({
        "id": rate.id, "object": "tax_rate", "active": true, "country": rate.country,
        "created": rate.created, "description": null, "display_name": rate.display_name,
        "inclusive": rate.inclusive, "jurisdiction": rate.jurisdiction, "livemode": false,
        "metadata": {}, "percentage": decimal(rate.bps, 2), "state": null, "tax_type": "vat",
    })
}

fn render_credit_note(note: &CreditNote, shape: Shape) -> Value {
    let net = note.amount - note.tax;
    let taxes = tax_amounts(note.tax, net, &note.tax_rate, shape);
    let mut value = json!({
        "id": note.id, "object": "credit_note", "amount": note.amount, "created": note.created,
        "currency": note.currency, "customer": note.customer,
        "customer_balance_transaction": null, "discount_amount": 0, "discount_amounts": [],
        "invoice": note.invoice,
        "lines": list(format!("/v1/credit_notes/{}/lines", note.id), Vec::new()),
        "livemode": false, "memo": null, "metadata": {}, "number": note.number,
        "out_of_band_amount": note.out_of_band.then_some(note.amount), "pdf": format!("https://invoice.example.com/cn/{}", note.id),
        "reason": note.reason, "status": note.status, "subtotal": net,
        "total": note.amount,
        "type": if note.pre_payment { "pre_payment" } else { "post_payment" },
        "voided_at": note.voided_at,
    });
    if shape >= Shape::Basil {
        extend(
            &mut value,
            json!({
                "amount_shipping": 0, "effective_at": note.created, "pretax_credit_amounts": [],
                "refunds": [], "shipping_cost": null, "subtotal_excluding_tax": net,
                "total_excluding_tax": net, "total_taxes": taxes,
            }),
        );
    } else {
        extend(&mut value, json!({"refund": null, "tax_amounts": taxes}));
    }
    if shape >= Shape::V2022_11_15 {
        extend(&mut value, json!({"total_excluding_tax": net}));
    }
    if shape >= Shape::Endive {
        let (before, after) = if note.pre_payment {
            (note.amount, 0)
        } else {
            (0, note.amount)
        };
        extend(
            &mut value,
            json!({"post_payment_amount": after, "pre_payment_amount": before}),
        );
    }
    value
}

fn render_session(session: &Session, shape: Shape) -> Value {
    let payment_status = match (session.amount_total, shape >= Shape::Basil) {
        // Before basil a session with nothing to pay was `paid`.
        (0, true) => "no_payment_required",
        _ => "paid",
    };
    let mut value = json!({
        "id": session.id, "object": "checkout.session", "allow_promotion_codes": null,
        "amount_subtotal": session.amount_total, "amount_total": session.amount_total,
        "automatic_tax": {"enabled": false, "status": null}, "billing_address_collection": null,
        "cancel_url": "https://app.example.com/pricing",
        "client_reference_id": session.client_reference_id, "created": session.created,
        "currency": session.currency, "customer": session.customer,
        "customer_details": {
            "email": session.customer_email, "name": session.customer_name, "phone": null,
            "tax_exempt": "none", "tax_ids": [],
        },
        "customer_email": null, "expires_at": session.created + 86_400, "livemode": false,
        "locale": null, "metadata": metadata(&session.metadata), "mode": session.mode,
        "payment_intent": session.payment_intent, "payment_link": null,
        "payment_method_types": ["card"], "payment_status": payment_status,
    });
    extend(
        &mut value,
        json!({
            "recovered_from": null, "setup_intent": null, "shipping_address_collection": null,
            "shipping_options": [], "status": "complete", "submit_type": null,
            "subscription": session.subscription,
            "success_url": "https://app.example.com/welcome",
            "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
            "url": null,
        }),
    );
    if shape >= Shape::V2022_11_15 {
        extend(
            &mut value,
            json!({"custom_fields": [], "invoice": session.invoice}),
        );
    }
    if shape >= Shape::Basil {
        extend(
            &mut value,
            json!({
                "adaptive_pricing": {"enabled": false}, "collected_information": null,
                "custom_text": {
                    "after_submit": null, "shipping_address": null, "submit": null,
                    "terms_of_service_acceptance": null,
                },
                "discounts": [], "payment_method_options": {}, "permissions": null,
                "ui_mode": if shape >= Shape::Endive { "hosted_page" } else { "hosted" },
            }),
        );
    }
    value
}

/// What `data.previous_attributes` says when an object went from `before` to `after`: the former
/// value of every field that changed, nested objects in part, lists and other objects whole.
pub(super) fn previous_attributes(before: &Value, after: &Value) -> Value {
    let (Value::Object(before), Value::Object(after)) = (before, after) else {
        return Value::Null;
    };
    let mut previous = Map::new();
    for (key, was) in before {
        let is = after.get(key).unwrap_or(&Value::Null);
        if was == is {
            continue;
        }
        let in_part = was.is_object() && is.is_object() && was.get("id") == is.get("id");
        let value = if in_part {
            previous_attributes(was, is)
        } else {
            was.clone()
        };
        previous.insert(key.clone(), value);
    }
    for (key, is) in after {
        if !before.contains_key(key) && !is.is_null() {
            previous.insert(key.clone(), Value::Null);
        }
    }
    Value::Object(previous)
}

/// The instant of Unix `seconds`; the epoch when it is out of range.
pub(super) fn instant(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH)
}
