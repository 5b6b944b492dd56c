package harness

import "testing"

func TestMariaDBStartsAndIsGoneAfterwards(t *testing.T) {
	m, err := StartMariaDB(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.Ask(t.Context(), "shop", "SELECT item FROM orders ORDER BY id")
	if err != nil || len(got) != 3 {
		t.Errorf("orders: %v, %v", got, err)
	}
	if left, err := m.Leftovers(t.Context(), "curfew_%"); err != nil || len(left) != 0 {
		t.Errorf("leftovers of nothing: %v, %v", left, err)
	}
	if err := m.Kill(); err != nil {
		t.Error(err)
	}
	if err := m.Restart(); err != nil {
		t.Error(err)
	}
	if got, err = m.Ask(t.Context(), "shop", "SELECT item FROM orders ORDER BY id"); err != nil || len(got) != 3 {
		t.Errorf("orders after a kill: %v, %v", got, err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if _, err := m.Connect(t.Context(), "shop"); err == nil {
		t.Error("it still answers")
	}
}
