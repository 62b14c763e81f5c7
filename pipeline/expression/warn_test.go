package expression_test

import (
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline/expression"
)

func TestWarnings(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`props.nps_score == 1 and props.nps_score == 2`:                    "1:42: this can't hold together with the clause before it about props.nps_score: never true",
		`props.nps_score == 1 and props.vip && 2 == props.nps_score`:       "1:41: this can't hold together with the clause before it about props.nps_score: never true",
		`(props.nps_score == 1 and props.vip) and props.nps_score == 2`:    "1:58: this can't hold together with the clause before it about props.nps_score: never true",
		`props.nps_score == 1 or props.nps_score == 2`:                     "",
		`props.nps_score == 1 and (props.nps_score == 2 or props.vip)`:     "",
		`props.nps_score == 1 and props.other_id == 2`:                     "",
		`props.nps_score == 1 and props.nps_score == 1.0`:                  "",
		`props.nps_score == 1 and props.nps_score != 1`:                    "1:42: this can't hold together with the clause before it about props.nps_score: never true",
		`props.nps_score == null and props.nps_score > 1`:                  "1:45: this can't hold together with the clause before it about props.nps_score: never true",
		`props.nps_score == 5 and props.nps_score in [1, 2]`:               "1:42: this can't hold together with the clause before it about props.nps_score: never true",
		`props.goal_name == "a" and props.goal_name startsWith "b"`:        "1:44: this can't hold together with the clause before it about props.goal_name: never true",
		`props.nps_score > 5 and props.nps_score < 3`:                      "1:41: this can't hold together with the clause before it about props.nps_score: never true",
		`props.nps_score < 5 and props.nps_score >= 5`:                     "1:41: this can't hold together with the clause before it about props.nps_score: never true",
		`props.nps_score <= 5 and props.nps_score >= 5`:                    "",
		`props.nps_score > 3 and props.nps_score < 5`:                      "",
		`5 < props.nps_score < 3`:                                          "1:21: this can't hold together with the clause before it about props.nps_score: never true",
		`props.nps_score != 1 or props.nps_score != 2`:                     "1:41: props.nps_score is always other than one of the two: always true",
		`props.nps_score in []`:                                            "1:17: the list is empty: nothing is in it",
		`props.nps_score in 5..1`:                                          "1:21: the range 5..1 is empty",
		`props.nps_score in 1..5`:                                          "",
		`len(5..1) == 0`:                                                   "1:6: the range 5..1 is empty",
		`1 == 2`:                                                           "1:3: two constants are compared: always false",
		`"a" == "a" or props.vip`:                                          "1:5: two constants are compared: always true",
		`props.goal_name == props.goal_name`:                               "1:17: props.goal_name is compared with itself",
		`props.vip and true`:                                               "1:15: true is a constant: it decides and or changes nothing",
		`props.nps_score == 1.5`:                                           "1:20: props.nps_score is an integer: it is never 1.5",
		`props.nps_score != 1.5`:                                           "1:20: props.nps_score is an integer: it is always other than 1.5",
		`props.nps_score in [1, 2.5, "x"]`:                                 "1:24: props.nps_score is an integer: it is never 2.5\n1:29: props.nps_score is of another type: it is never \"x\"",
		`props.vip in [true, "yes"]`:                                       `1:21: props.vip is of another type: it is never "yes"`,
		`event.environment == "prod"`:                                      `1:22: the environment is production or qa: it is never "prod"`,
		`"qa" == event.environment`:                                        "",
		`event.environment in ["qa", "test"]`:                              `1:29: the environment is production or qa: it is never "test"`,
		`props.day > "1 March"`:                                            `1:13: "1 March" is no date; dates are written as 2006-01-02 or in RFC 3339`,
		`props.day == "2026-03-01" or props.day >= "2026-03-01T00:00:00Z"`: "",
		`props.nps_score == null`:                                          "",
		`props.vip == true`:                                                "",
		"props.vip\nand props.nps_score in []":                             "2:21: the list is empty: nothing is in it",
		`any(split(props.tags, ","), # == "a" and # == "b")`:               `1:44: this can't hold together with the clause before it about #: never true`,
	} {
		_, warnings, err := expression.Compile(text, expression.Scope{Types: catalog()})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		var got []string
		for _, w := range warnings {
			got = append(got, w.String())
		}
		if strings.Join(got, "\n") != want {
			t.Errorf("%s:\n got %s\nwant %s", text, strings.Join(got, "\n"), want)
		}
	}
}
