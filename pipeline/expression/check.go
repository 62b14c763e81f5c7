package expression

import (
	"reflect"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/checker"
	"github.com/expr-lang/expr/compiler"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/types"
	"github.com/expr-lang/expr/vm"

	"github.com/millrace-io/millrace/pipeline"
)

// check checks the types of what was written, against the catalog's types. It
// returns the type of the whole.
func check(tree *parser.Tree, s Scope, n *names, found *problems) pipeline.Type {
	if n.broken {
		return ""
	}
	props := types.Map{}
	for name, t := range n.properties {
		props[name] = exprType(t)
	}
	env := types.Map{"props": props}
	for name, fields := range n.members {
		m := types.Map{}
		for f := range fields {
			m[f] = types.String
		}
		env[name] = m
	}
	config := conf.New(env)
	if s.Delivery {
		for name, h := range helpers {
			config.Functions[name] = &builtin.Function{Name: name, Types: []reflect.Type{h.signature}}
		}
	}
	t, err := checker.Check(tree, config)
	if err != nil {
		found.put(fromExpr(err))
		return ""
	}
	return ourType(t)
}

func exprType(t pipeline.Type) types.Type {
	switch t {
	case pipeline.Integer:
		return types.Int64
	case pipeline.Number:
		return types.Float64
	case pipeline.String, pipeline.Date:
		return types.String
	case pipeline.Boolean:
		return types.Bool
	}
	return types.Any
}

func ourType(t reflect.Type) pipeline.Type {
	switch t.Kind() {
	case reflect.Int, reflect.Int64:
		return pipeline.Integer
	case reflect.Float64:
		return pipeline.Number
	case reflect.String:
		return pipeline.String
	case reflect.Bool:
		return pipeline.Boolean
	}
	return ""
}

// generate compiles a rewritten tree. Nothing is left to expr's optimizer: it
// folds by rules that are not ours (integers that wrap around).
func generate(root ast.Node, source file.Source) (*vm.Program, error) {
	tree := &parser.Tree{Node: root, Source: source}
	config := conf.New(types.Map{})
	if _, err := checker.Check(tree, config); err != nil {
		return nil, fromExpr(err)
	}
	code, err := compiler.Compile(tree, config)
	if err != nil {
		message, _, _ := strings.Cut(err.Error(), "\n") // what follows is a stack trace
		return nil, &Error{1, 1, message}
	}
	return code, nil
}
