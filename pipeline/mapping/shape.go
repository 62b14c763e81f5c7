package mapping

// Shape is what is known of a body, or a part of it, before there is an event.
type Shape struct {
	Entry    int     // of the mapping, that mentioned it first
	Name     string  // of a member of an object
	Array    bool    // its children are elements
	Children []Shape // of an object or an array
	Leaf     bool    // a value: Fixed, or Property, or else an expression's
	Fixed    []byte  // compact JSON
	Property string  // of the event, under the catalog's name
}

// Shape returns the shape of the bodies, or nil where the mapping sends every
// property of the event.
func (m *Mapping) Shape() *Shape {
	if m.root == nil {
		return nil
	}
	s := m.root.shape()
	return &s
}

func (n *node) shape() Shape {
	s := Shape{Entry: n.entry, Name: n.key, Array: n.array}
	if n.source != nil {
		s.Leaf, s.Entry, s.Fixed, s.Property = true, n.source.entry, n.source.fixed, n.source.property
	}
	for _, c := range n.children {
		s.Children = append(s.Children, c.shape())
	}
	return s
}
