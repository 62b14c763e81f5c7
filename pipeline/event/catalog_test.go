package event

import "testing"

func TestBuiltinCatalogLoads(t *testing.T) {
	c, err := BuiltinCatalog()
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.Example("survey.submitted", 3)
	t.Log(string(b), err)
}
