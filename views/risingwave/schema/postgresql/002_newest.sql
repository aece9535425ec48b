-- The newest windows first, without putting all into order.

CREATE INDEX IF NOT EXISTS windows_by_start ON windows (window_start DESC, registration_number, window_definition);
