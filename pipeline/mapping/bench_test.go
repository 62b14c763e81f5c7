package mapping

import "testing"

// five maps an event of 485 bytes to five properties.
func five(b *testing.B) *Mapping {
	return mustCompile(b,
		Property{From: "wm.euid", As: "identity"},
		fixed("app_id", `"11"`),
		fixed("event", `"Walk-Thru Goal Reached"`),
		Property{From: "goal_name", As: "/properties/subject"},
		Property{From: "walk_thru_id", As: "/properties/walk_thru_id"},
	)
}

var event485 = properties{
	{"wm.euid", "ada.lovelace@example.com"},
	{"wm.env", int64(0)},
	{"wm.language", "en-US"},
	{"type", "smart_walk_thru.goal_reached"},
	{"created_at", int64(1741064767123)},
	{"sid", "5f0c9d2e-8d1b-4f6e-9a55-0a6d6c1f7b11"},
	{"env.browser.name", "Firefox"},
	{"env.browser.version", "136.0"},
	{"env.os.name", "Linux"},
	{"ctx.title", "Invoices – Example"},
	{"ctx.location.protocol", "https"},
	{"ctx.location.hostname", "app.example.com"},
	{"ctx.location.pathname", "/invoices/new"},
	{"walk_thru_id", int64(12345)},
	{"walk_thru_name", "Create an invoice"},
	{"goal_id", int64(67890)},
	{"goal_name", "Invoice created"},
}

func BenchmarkFiveProperties(b *testing.B) {
	m, in, room := five(b), input(event485), make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.AppendJSON(room, in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWithExpression(b *testing.B) {
	m, in, room := mustCompile(b, Property{Name: "subject", Expr: `props["goal_name"] ?? "goal"`}), input(event485), make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.AppendJSON(room, in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEveryProperty(b *testing.B) {
	m, in, room := mustCompile(b), input(event485), make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.AppendJSON(room, in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkQuery(b *testing.B) {
	m, in, room := mustCompile(b, Property{From: "wm.euid", As: "identity"}, fixed("app_id", `"11"`), Property{From: "goal_id"}), input(event485), make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.AppendQuery(room, in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkURL(b *testing.B) {
	u, in, room := mustCompileURL(b, `https://example.com/users/{{ props["wm.euid"] }}/events?goal={{ props["goal_id"] }}`), input(event485), make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := u.Append(room, in); err != nil {
			b.Fatal(err)
		}
	}
}
