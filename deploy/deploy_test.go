// Package deploy_test checks what stands beside it: the files that install
// Millrace, and the examples that people copy.
package deploy_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/event"
)

// TestExamples takes each example the way check does. That each is also taken by
// its platform is tested in services/millrace.
func TestExamples(t *testing.T) {
	t.Parallel()
	catalog, err := event.BuiltinCatalog()
	if err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob("examples/*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			set := definition.Parse(definition.File{Name: name, Data: data})
			after, problems := set.Check(definition.NewSnapshot(catalog))
			count, failures := set.RunTests(t.Context(), after)
			for _, p := range append(problems, failures...) {
				t.Errorf("%v", p)
			}
			if count == 0 {
				t.Error("it has no tests")
			}
		})
	}
}

func loadCompose(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{"../docker-compose.yml"}, cli.WithProfiles([]string{"*"}))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

// TestCompose checks that the roles are there, wait for what they need, and
// find each other.
func TestCompose(t *testing.T) {
	t.Parallel()
	services := loadCompose(t).Services
	if services["kafka"].HealthCheck == nil {
		t.Error("nobody can wait for kafka")
	}
	if services["init"].DependsOn["kafka"].Condition != types.ServiceConditionHealthy {
		t.Error("init does not wait for kafka")
	}
	for _, role := range []string{"init", "filter", "transform", "sink"} {
		s, ok := services[role]
		if !ok {
			t.Errorf("no %s", role)
			continue
		}
		if len(s.Command) < 3 || !slices.Equal(s.Command[:3], []string{role, "--brokers", "kafka:9092"}) {
			t.Errorf("%s runs %q", role, s.Command)
		}
		if s.Build == nil || s.Build.Dockerfile != "deploy/Dockerfile" || s.Image != services["init"].Image {
			t.Errorf("%s is not built as the others are", role)
		}
		if role != "init" && s.DependsOn["init"].Condition != types.ServiceConditionCompletedSuccessfully {
			t.Errorf("%s does not wait for init", role)
		}
	}
	if s := services["sink"]; s.Deploy == nil || *s.Deploy.Replicas != 2 || s.Hostname != "" {
		t.Error("two sinks run under names of their own")
	}
	// Clients are told the advertised address, so it must be one they can reach.
	if a := services["kafka"].Environment["KAFKA_ADVERTISED_LISTENERS"]; a == nil || !strings.Contains(*a, "//kafka:9092,") {
		t.Error("kafka does not advertise itself under its name")
	}
}

// TestImage checks what can be checked of the image without building it.
func TestImage(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	gomod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(gomod), "\ngo ")
	version, _, _ := strings.Cut(rest, "\n")
	minor := version[:strings.LastIndex(version, ".")]
	for _, want := range []string{"FROM --platform=$BUILDPLATFORM golang:" + minor + ".", "USER nonroot:nonroot\n", `ENTRYPOINT ["/millrace"]`, "CGO_ENABLED=0"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the Dockerfile has no %q", want)
		}
	}
}
