-- More kinds of differences. The check is widened: the release before writes what the old one allowed.

-- contract: unused since V0049
ALTER TABLE reconciliation_items DROP CONSTRAINT reconciliation_items_kind_check;
ALTER TABLE reconciliation_items ADD CONSTRAINT reconciliation_items_kind_check
    CHECK (kind IN ('missing_in_db', 'missing_in_stripe', 'amount_differs', 'status_differs', 'fee_differs',
                    'currency_differs', 'possible_double_payment', 'foreign_event', 'restated')) NOT VALID;
