package expression

import (
	"fmt"
	"slices"
)

// numbers returns the numbers among the arguments and within lists of them.
func numbers(m *machine, name string, args []any) ([]any, error) {
	flat, err := flatten(m, []any{args})
	if err != nil {
		return nil, err
	}
	for _, v := range flat.([]any) {
		if _, ok := float(v); !ok {
			return nil, fmt.Errorf("%s needs numbers, not %s", name, typeName(v))
		}
	}
	return flat.([]any), nil
}

// extreme returns the largest or, with sign -1, the smallest number; null of none.
func extreme(name string, sign int) func(*machine, []any) (any, error) {
	return func(m *machine, args []any) (any, error) {
		all, err := numbers(m, name, args)
		if err != nil || len(all) == 0 {
			return nil, err
		}
		best := all[0]
		for _, v := range all[1:] {
			if c, _ := compareNumbers(v, best); c*sign > 0 {
				best = v
			}
		}
		return best, nil
	}
}

func mean(m *machine, args []any) (any, error) {
	all, err := numbers(m, "mean", args)
	if err != nil || len(all) == 0 {
		return 0.0, err
	}
	total := 0.0
	for _, v := range all {
		f, _ := float(v)
		total += f
	}
	return floating("divide", total, len(all), func(x, y float64) float64 { return x / y })
}

func median(m *machine, args []any) (any, error) {
	all, err := numbers(m, "median", args)
	if err != nil || len(all) == 0 {
		return 0.0, err
	}
	m.spend(16 * len(all))
	sorted := make([]float64, len(all))
	for i, v := range all {
		sorted[i], _ = float(v)
	}
	slices.Sort(sorted)
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2], nil
	}
	return floating("divide", sorted[n/2-1]+sorted[n/2], 2, func(x, y float64) float64 { return x / y })
}

// unique keeps the first of equal elements.
func unique(m *machine, args []any) (any, error) {
	out := []any{}
	for _, v := range args[0].([]any) {
		m.spend(len(out))
		if !slices.ContainsFunc(out, func(have any) bool { return equal(m, have, v) }) {
			out = append(out, v)
		}
	}
	return out, nil
}

// flatten takes the elements of lists within lists.
func flatten(m *machine, args []any) (any, error) {
	out := []any{}
	var walk func(list []any, depth int) error
	walk = func(list []any, depth int) error {
		if depth == 0 {
			return errDepth
		}
		m.spend(len(list))
		for _, v := range list {
			inner, ok := v.([]any)
			if !ok {
				out = append(out, v)
				continue
			}
			if err := walk(inner, depth-1); err != nil {
				return err
			}
		}
		return nil
	}
	if err := walk(args[0].([]any), maxDepth); err != nil {
		return nil, err
	}
	return out, nil
}
