package harness

import "testing"

func TestPostgresStartsAndIsGoneAfterwards(t *testing.T) {
	p, err := StartPostgres(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.Ask(t.Context(), "orders", "SELECT item FROM orders ORDER BY id")
	if err != nil || len(got) != 3 {
		t.Errorf("orders: %v, %v", got, err)
	}
	if left, err := p.Leftovers(t.Context(), "curfew_%"); err != nil || len(left) != 0 {
		t.Errorf("leftovers of nothing: %v, %v", left, err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if _, err := p.Connect(t.Context(), "orders"); err == nil {
		t.Error("it still answers")
	}
}
