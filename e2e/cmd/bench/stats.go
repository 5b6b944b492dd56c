package main

import (
	"math"
	"slices"
)

func median(v []float64) float64 { return percentile(v, 50) }

// percentile interpolates between the nearest values.
func percentile(v []float64, p float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(v))
	at := p / 100 * float64(len(s)-1)
	low := int(at)
	if low == len(s)-1 {
		return s[low]
	}
	return s[low] + (at-float64(low))*(s[low+1]-s[low])
}

// geomean of positive values.
func geomean(v []float64) float64 {
	var sum float64
	for _, x := range v {
		sum += math.Log(x)
	}
	return math.Exp(sum / float64(len(v)))
}

// spread is how far the rounds are apart, as a share of their median.
func spread(v []float64) float64 { return (slices.Max(v) - slices.Min(v)) / median(v) }
