package harness

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// Ready is what /readyz of a Curfew says.
type Ready struct {
	Status string `json:"status"`
	Checks []struct {
		Name   string `json:"name"`
		OK     bool   `json:"ok"`
		Needed bool   `json:"needed"`
		Reason string `json:"reason"`
	} `json:"checks"`
}

// Red gives the checks that are not green, with their reasons.
func (r Ready) Red() map[string]string {
	red := map[string]string{}
	for _, c := range r.Checks {
		if !c.OK {
			red[c.Name] = c.Reason
		}
	}
	return red
}

// Ready asks /readyz, which answers in full whether it is green or red.
func (c *Curfew) Ready(ctx context.Context) (r Ready, err error) {
	status, body, err := c.ops(ctx, "/readyz")
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return r, err
	}
	if (status == http.StatusOK) != (r.Status == "ready") {
		return r, fmt.Errorf("status %d says %q", status, r.Status)
	}
	return r, nil
}

// Metrics gives every series of /metrics by its name and labels, as they stand there.
func (c *Curfew) Metrics(ctx context.Context) (map[string]float64, error) {
	status, body, err := c.ops(ctx, "/metrics")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("/metrics answers %d: %s", status, body)
	}
	if err != nil {
		return nil, err
	}
	all := map[string]float64{}
	lines := bufio.NewScanner(strings.NewReader(string(body)))
	for lines.Scan() {
		series, value, ok := cutLast(lines.Text(), " ")
		if !ok || strings.HasPrefix(series, "#") {
			continue
		}
		if all[series], err = strconv.ParseFloat(value, 64); err != nil {
			return nil, err
		}
	}
	return all, lines.Err()
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

func (c *Curfew) ops(ctx context.Context, path string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.Ops+path, nil)
	if err != nil {
		return 0, nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res.StatusCode, body, err
}
