-- No statement here runs long enough to be worth compiling: on 5 million rows the movements under a discount profile
-- read two thousand of them in 5 ms and were compiled for 150 ms before. It is the estimated cost that decides on it,
-- and that grows with the history even where what is read does not. A default of the role in this database alone: no
-- session has to say it (which would pin it in RDS Proxy), and other roles keep what they have.

DO $$
BEGIN
    EXECUTE format('ALTER ROLE %I IN DATABASE %I SET jit = off', current_user, current_database());
END
$$;
