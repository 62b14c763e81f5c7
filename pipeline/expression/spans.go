package expression

import (
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser/lexer"
)

// spans finds the text that a node was written as. A node itself knows only the
// place of one of its tokens.
type spans struct {
	runes  []rune
	tokens []lexer.Token
}

func newSpans(text string) *spans {
	source := file.NewSource(text)
	tokens, _ := lexer.Lex(source) // it was parsed already
	return &spans{[]rune(text), tokens}
}

// text returns what a node was written as, with the brackets that belong to it,
// and where that is.
func (s *spans) text(n ast.Node) (string, file.Location) {
	first, last := len(s.tokens), -1
	ast.Walk(&n, visit(func(n *ast.Node) {
		at := (*n).Location()
		for i, t := range s.tokens {
			if t.Location == at && t.To > t.From {
				first, last = min(first, i), max(last, i)
			}
		}
	}))
	if last < 0 {
		return string(s.runes), file.Location{To: len(s.runes)}
	}
	first, last = s.balance(first, last)
	at := file.Location{From: s.tokens[first].From, To: s.tokens[last].To}
	return string(s.runes[at.From:at.To]), at
}

// balance extends a range of tokens until every bracket in it has its other half.
func (s *spans) balance(first, last int) (int, int) {
	open := 0 // brackets that are still to be closed behind the range
	for i := first; i <= last || open > 0 && i < len(s.tokens); i++ {
		last = max(last, i)
		switch bracket(s.tokens[i]) {
		case 1:
			open++
		case -1:
			if open--; open < 0 { // it was opened before the range
				first, open = s.opening(first), 0
			}
		}
	}
	return first, last
}

// opening goes back to the bracket that is open before a token.
func (s *spans) opening(first int) int {
	for depth := 1; first > 0 && depth > 0; {
		first--
		depth -= bracket(s.tokens[first])
	}
	return first
}

// bracket is 1 for a bracket that opens, -1 for one that closes, else 0.
func bracket(t lexer.Token) int {
	switch {
	case t.Is(lexer.Bracket, "(", "[", "{"):
		return 1
	case t.Is(lexer.Bracket, ")", "]", "}"):
		return -1
	}
	return 0
}
