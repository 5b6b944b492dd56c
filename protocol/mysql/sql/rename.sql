-- Curfew connects from somewhere else than before.
RENAME USER :old TO :account;
