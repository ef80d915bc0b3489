package table_test

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/weir-dev/weir/internal/table"
)

const conditionItem = `{"id":{"S":"1"},"n":{"N":"5"},"s":{"S":"hello"},"b":{"B":"aGkgdGhlcmU="},"t":{"BOOL":true},"z":{"NULL":true},
	"ss":{"SS":["x","y"]},"ns":{"NS":["2","4"]},"bs":{"BS":["YQ==","Yg=="]},
	"l":{"L":[{"N":"2"},{"S":"dog"},{"NS":["1","2"]}]},"m":{"M":{"x":{"N":"1"},"y":{"L":[{"N":"-1"},{"N":"2"}]}}},"and":{"S":"AND"},"n5":{"N":"5.0"}}`

// conditionValues are there for every condition; those that it doesn't name are left out.
func conditionValues() map[string]string {
	return map[string]string{
		":four": `{"N":"4"}`, ":five": `{"N":"5"}`, ":fiveToo": `{"N":"50e-1"}`, ":six": `{"N":"6"}`, ":five_s": `{"S":"5"}`,
		":hello": `{"S":"hello"}`, ":hell": `{"S":"hell"}`, ":ell": `{"S":"ell"}`, ":he": `{"S":"he"}`, ":x": `{"S":"x"}`, ":xyz": `{"S":"xyz"}`, ":empty": `{"S":""}`,
		":hi": `{"B":"aGk="}`, ":there": `{"B":"dGhlcmU="}`, ":a": `{"B":"YQ=="}`, ":true": `{"BOOL":true}`, ":false": `{"BOOL":false}`, ":null": `{"NULL":true}`,
		":ss": `{"SS":["y","x"]}`, ":ssx": `{"SS":["x"]}`, ":ns": `{"NS":["4.0","2"]}`, ":ns12": `{"NS":["2","1"]}`, ":bs": `{"BS":["Yg==","YQ=="]}`, ":two": `{"N":"2"}`,
		":list": `{"L":[{"N":"2.0"},{"S":"dog"},{"NS":["2","1"]}]}`, ":shorter": `{"L":[{"N":"2"}]}`, ":map": `{"M":{"y":{"L":[{"N":"-1"},{"N":"2"}]},"x":{"N":"1"}}}`,
		":one": `{"N":"1"}`, ":three": `{"N":"3"}`, ":eight": `{"N":"8"}`,
		":S": `{"S":"S"}`, ":N": `{"S":"N"}`, ":B": `{"S":"B"}`, ":BOOL": `{"S":"BOOL"}`, ":NULL": `{"S":"NULL"}`, ":SS": `{"S":"SS"}`, ":NS": `{"S":"NS"}`,
		":BS": `{"S":"BS"}`, ":L": `{"S":"L"}`, ":M": `{"S":"M"}`, ":DOG": `{"S":"DOG"}`,
	}
}

func conditionNames() map[string]string {
	return map[string]string{"#n": "n", "#and": "and", "#m": "m", "#x": "x", "#hash": "#n"}
}

// conditional is a deleteItem with the condition, and with the names and values of these that it names.
func conditional(condition string) string {
	return fmt.Sprintf(`{"TableName":"t","Key":{"id":{"S":"1"}},"ConditionExpression":%q`, condition) +
		references("ExpressionAttributeNames", condition, conditionNames()) + references("ExpressionAttributeValues", condition, conditionValues()) + `}`
}

// references is a member of a request with what the expression names of all these.
func references(member, expression string, all map[string]string) string {
	var list []string
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if !regexp.MustCompile(key + `([^a-zA-Z0-9_]|$)`).MatchString(expression) {
			continue
		}
		v := all[key]
		if key[0] == '#' {
			v = fmt.Sprintf("%q", v)
		}
		list = append(list, fmt.Sprintf("%q:%s", key, v))
	}
	if list == nil {
		return ""
	}
	return fmt.Sprintf(`,%q:{%s}`, member, strings.Join(list, ","))
}

// TestCondition: with the item, and without one.
func TestCondition(t *testing.T) {
	for condition, want := range map[string]struct{ holds, withoutItem bool }{
		// Equality is of every type, and of one type.
		`n = :five`:         {true, false},
		`:five = n`:         {true, false},
		`n = :fiveToo`:      {true, false},
		`n=n5`:              {true, false},
		`n = :five_s`:       {false, false},
		`n <> :five_s`:      {true, true},
		`n <> :five`:        {false, true},
		`s = :hello`:        {true, false},
		`t = :true`:         {true, false},
		`t = :false`:        {false, false},
		`z = :null`:         {true, false},
		`b = :hi`:           {false, false},
		`ss = :ss`:          {true, false},
		`ss = :ssx`:         {false, false},
		`ns = :ns`:          {true, false},
		`bs = :bs`:          {true, false},
		`l = :list`:         {true, false},
		`l = :shorter`:      {false, false},
		`m = :map`:          {true, false},
		`m <> :map`:         {false, true},
		`none = none2`:      {false, false},
		`none <> none2`:     {true, true},
		`none <> :five`:     {true, true},
		`:five = :fiveToo`:  {true, true},
		`#n = :five`:        {true, false},
		`m.x = :one`:        {true, false},
		`#m.#x = :one`:      {true, false},
		`m.y[1] = :two`:     {true, false},
		`m . y [ 1 ]= :two`: {true, false},
		`m.y[2] = :two`:     {false, false},
		`m[0] = :two`:       {false, false},
		`l.x = :two`:        {false, false},
		`s.x = :two`:        {false, false},
		// Order is of texts, numbers and binaries.
		`n < :six`:                               {true, false},
		`n < :five`:                              {false, false},
		`n <= :five`:                             {true, false},
		`n > :four`:                              {true, false},
		`n >= :six`:                              {false, false},
		`n>=:fiveToo`:                            {true, false},
		`n < :hello`:                             {false, false},
		`n > :hello`:                             {false, false},
		`s > :hell`:                              {true, false},
		`b > :hi`:                                {true, false},
		`b < :hi`:                                {false, false},
		`l > :four`:                              {false, false},
		`t <= n`:                                 {false, false},
		`none < :five`:                           {false, false},
		`none >= none2`:                          {false, false},
		`m.x < m.y[1]`:                           {true, false},
		`m.x < m.y[0]`:                           {false, false},
		`n BETWEEN :four AND :six`:               {true, false},
		`n between :five And :fiveToo`:           {true, false},
		`n BETWEEN :six AND :eight`:              {false, false},
		`n BETWEEN m.x AND n5`:                   {true, false},
		`n BETWEEN :hell AND :hello`:             {false, false},
		`n BETWEEN n5 AND m.x`:                   {false, false},
		`n BETWEEN none AND :six`:                {false, false},
		`s BETWEEN :hell AND :x`:                 {true, false},
		`n BETWEEN :four AND :six AND t = :true`: {true, false},
		`n IN (:five_s, :four, :fiveToo)`:        {true, false},
		`n IN(:four)`:                            {false, false},
		`n in (n5)`:                              {true, false},
		`none IN (none2, :five)`:                 {false, false},
		`l IN (:list)`:                           {true, false},
		// Functions.
		`attribute_exists(n)`:             {true, false},
		`attribute_exists ( m.y[0] )`:     {true, false},
		`attribute_exists(m.y[9])`:        {false, false},
		`attribute_not_exists(n)`:         {false, true},
		`attribute_not_exists(none)`:      {true, true},
		`attribute_type(s, :S)`:           {true, false},
		`attribute_type(n, :N)`:           {true, false},
		`attribute_type(b, :B)`:           {true, false},
		`attribute_type(t, :BOOL)`:        {true, false},
		`attribute_type(z, :NULL)`:        {true, false},
		`attribute_type(ss, :SS)`:         {true, false},
		`attribute_type(ns, :NS)`:         {true, false},
		`attribute_type(bs, :BS)`:         {true, false},
		`attribute_type(l, :L)`:           {true, false},
		`attribute_type(m, :M)`:           {true, false},
		`attribute_type(m, :L)`:           {false, false},
		`attribute_type(none, :L)`:        {false, false},
		`attribute_type(:five, :N)`:       {true, true},
		`begins_with(s, :hell)`:           {true, false},
		`begins_with(s, :ell)`:            {false, false},
		`begins_with(s, :empty)`:          {true, false},
		`begins_with(b, :hi)`:             {true, false},
		`begins_with(b, :hell)`:           {false, false},
		`begins_with(n, :hell)`:           {false, false},
		`begins_with(:hello, s)`:          {true, false},
		`begins_with(none, none2)`:        {false, false},
		`contains(s, :ell)`:               {true, false},
		`contains(s, :xyz)`:               {false, false},
		`contains(s, :five)`:              {false, false},
		`contains(b, :there)`:             {true, false},
		`contains(b, :a)`:                 {false, false},
		`contains(ss, :x)`:                {true, false},
		`contains(ss, :xyz)`:              {false, false},
		`contains(ss, :ssx)`:              {false, false},
		`contains(ns, :two)`:              {true, false},
		`contains(ns, :three)`:            {false, false},
		`contains(bs, :a)`:                {true, false},
		`contains(l, :two)`:               {true, false},
		`contains(l, :ns12)`:              {true, false},
		`contains(l, :x)`:                 {false, false},
		`contains(l, none)`:               {false, false},
		`contains(m, :x)`:                 {false, false},
		`contains(none, :x)`:              {false, false},
		`size(s) = :five`:                 {true, false},
		`size(s) = n`:                     {true, false},
		`:five <= size(s)`:                {true, false},
		`size(b) = :eight`:                {true, false},
		`size(ss) = :two`:                 {true, false},
		`size(l) BETWEEN :two AND :three`: {true, false},
		`size(m) IN (:one, :two)`:         {true, false},
		`size(n) = :one`:                  {false, false},
		`size(t) <> :one`:                 {true, true},
		`size(none) = :one`:               {false, false},
		`size(s) = :hello`:                {false, false},
		`size(:hello) = :five`:            {true, true},
		`contains(l, size(m))`:            {true, false},
		// NOT binds more than AND, AND more than OR.
		`n = :five AND s = :hello`:                        {true, false},
		`n = :five aNd s = :hell`:                         {false, false},
		`n = :six OR s = :hello`:                          {true, false},
		`n = :six or s = :hell`:                           {false, false},
		`NOT n = :six`:                                    {true, true},
		`not not NOT NOT n = :five`:                       {true, false},
		`n = :five OR n = :six AND n = :four`:             {true, false},
		`(n = :five OR n = :six) AND n = :four`:           {false, false},
		`NOT n = :five AND n = :six`:                      {false, false},
		`NOT (n = :five AND n = :six)`:                    {true, true},
		`(n = :five) AND (NOT (attribute_exists(none)))`:  {true, false},
		`(attribute_exists(n) AND (attribute_exists(s)))`: {true, false},
		`(n) = (:five)`:                                   {true, false},
		`(size(s)) > (:four)`:                             {true, false},
		`n IN ((:five), :six) AND begins_with((s), :he)`:  {true, false},
		`attribute_exists(#and) AND #and <> :hello`:       {true, false},
		`attribute_not_exists(#hash)`:                     {true, true},
	} {
		for _, c := range []struct {
			old   string
			holds bool
		}{{conditionItem, want.holds}, {"", want.withoutItem}} {
			_, _, _, err := apply(t, table.Delete, conditional(condition), c.old)
			if c.holds && err != nil {
				t.Errorf("%s (%t): %v", condition, c.old != "", err)
			}
			if !c.holds {
				wantError(t, condition, err, "ConditionalCheckFailedException: The conditional request failed")
			}
		}
	}
}

func TestConditionMistakes(t *testing.T) {
	for condition, want := range map[string]string{
		``:                         `The expression can not be empty;`,
		" \n":                      `The expression can not be empty;`,
		repeated('a', 4097):        `Expression size has exceeded the maximum allowed size; expression size: 4097`,
		`a`:                        `Syntax error; token: "<EOF>", near: "a"`,
		`attribute_not_exists(`:    `Syntax error; token: "<EOF>", near: "("`,
		`attribute_type()`:         `Syntax error; token: ")", near: "()"`,
		`a = `:                     `Syntax error; token: "<EOF>", near: "="`,
		`a == :five`:               `Syntax error; token: "=", near: "== :five"`,
		`a = 5`:                    `Syntax error; token: "5", near: "= 5"`,
		`a = "x"`:                  `Syntax error; token: """, near: "= "x"`,
		`a ! b`:                    `Syntax error; token: "!", near: "a ! b"`,
		`_a = :five`:               `Syntax error; token: "_", near: "_a"`,
		`a = é`:                    `Syntax error; token: "é", near: "= é"`,
		`a = : five`:               `Syntax error; token: ":", near: "= : five"`,
		`(a = :five`:               `Syntax error; token: "<EOF>", near: ":five"`,
		`a = :five)`:               `Syntax error; token: ")", near: ":five)"`,
		`a = :five b`:              `Syntax error; token: "b", near: ":five b"`,
		`a AND b = :five`:          `Syntax error; token: "AND", near: "a AND b"`,
		`(a) OR b = :five`:         `Syntax error; token: "OR", near: ") OR b"`,
		`NOT a`:                    `Syntax error; token: "<EOF>", near: "a"`,
		`a = (b = c)`:              `Syntax error; token: "<EOF>", near: ")"`,
		`(a = b) = c`:              `Syntax error; token: "=", near: ") = c"`,
		`a BETWEEN :four OR :five`: `Syntax error; token: "OR", near: ":four OR :five"`,
		`a BETWEEN :four AND`:      `Syntax error; token: "<EOF>", near: "AND"`,
		`a IN ()`:                  `Syntax error; token: ")", near: "()"`,
		`a IN :five`:               `Syntax error; token: ":five", near: "IN :five"`,
		`a IN (:five`:              `Syntax error; token: "<EOF>", near: ":five"`,
		`a = or`:                   `Syntax error; token: "or", near: "= or"`,
		`a. = b`:                   `Syntax error; token: "=", near: ". = b"`,
		`a[b] = c`:                 `Syntax error; token: "b", near: "[b]"`,
		`a[:five] = c`:             `Syntax error; token: ":five", near: "[:five]"`,
		`a[1 = c`:                  `Syntax error; token: "=", near: "1 = c"`,
		`a[99999999999] = :five`:   `List index is not within the allowable range; index: [99999999999]`,
		`a` + strings.Repeat(".b", 32) + ` = :five`: `The document path has too many nesting elements; nesting levels: 33`,
		`((attribute_exists(a)))`:                   `The expression has redundant parentheses;`,
		`a = :five AND ((b)) = :six`:                `The expression has redundant parentheses;`,
		`((a = :five)) AND dog(b)`:                  `The expression has redundant parentheses;`,
		`size(a) AND dog(b)`:                        `Invalid function name; function: dog`,
		`dog(a) = :five`:                            `Invalid function name; function: dog`,
		`SIZE(a) = :five`:                           `Invalid function name; function: SIZE`,
		`size(a)`:                                   `The function is not allowed to be used this way in an expression; function: size`,
		`attribute_exists(a) = :true`:               `The function is not allowed to be used this way in an expression; function: attribute_exists`,
		`begins_with(contains(a, b), c)`:            `The function is not allowed to be used this way in an expression; function: contains`,
		`if_not_exists(a, b) = :five`:               `The function is not allowed to be used this way in an expression; function: if_not_exists`,
		`list_append(a, b)`:                         `The function is not allowed to be used this way in an expression; function: list_append`,
		`#none = :five`:                             `An expression attribute name used in the document path is not defined; attribute name: #none`,
		`n = :none`:                                 `An expression attribute value used in expression is not defined; attribute value: :none`,
		`n = :five AND size(a.#none) = :x`:          `An expression attribute name used in the document path is not defined; attribute name: #none`,
		`attribute_exists(a, b)`:                    `Incorrect number of operands for operator or function; operator or function: attribute_exists, number of operands: 2`,
		`begins_with(a)`:                            `Incorrect number of operands for operator or function; operator or function: begins_with, number of operands: 1`,
		`size(a, b) = :five`:                        `Incorrect number of operands for operator or function; operator or function: size, number of operands: 2`,
		`n = #n`:                                    `The first operand must be distinct from the remaining operands for this operator or function; operator: =, first operand: [n]`,
		`contains(m.y[0], #m.y[0])`:                 `The first operand must be distinct from the remaining operands for this operator or function; operator: contains, first operand: [m, y, [0]]`,
		`attribute_exists(:five)`:                   `Operator or function requires a document path; operator or function: attribute_exists`,
		`attribute_type(a, b)`:                      `Incorrect operand type for operator or function; operator or function: attribute_type, operand type: {NS,SS,L,BS,N,M,B,BOOL,NULL,S}`,
		`attribute_type(a, :five)`:                  `Incorrect operand type for operator or function; operator or function: attribute_type, operand type: N`,
		`attribute_type(a, :DOG)`:                   `Invalid attribute type name found; type: DOG, valid types: {B,NULL,SS,BOOL,L,BS,N,NS,S,M}`,
		`begins_with(a, :five)`:                     `Incorrect operand type for operator or function; operator or function: begins_with, operand type: N`,
		`begins_with(size(a), :x)`:                  `Incorrect operand type for operator or function; operator or function: begins_with, operand type: N`,
		`size(:true) = :five`:                       `Incorrect operand type for operator or function; operator or function: size, operand type: BOOL`,
		`a < :list`:                                 `Incorrect operand type for operator or function; operator or function: <, operand type: L`,
		`:true >= a`:                                `Incorrect operand type for operator or function; operator or function: >=, operand type: BOOL`,
		`a BETWEEN :list AND :shorter`:              `Incorrect operand type for operator or function; operator or function: BETWEEN, operand type: L`,
		`a BETWEEN :six AND :five`: `The BETWEEN operator requires upper bound to be greater than or equal to lower bound` +
			`; lower bound operand: AttributeValue: {N:6}, upper bound operand: AttributeValue: {N:5}`,
		`a BETWEEN :five AND :x`: `The BETWEEN operator requires same data type for lower and upper bounds` +
			`; lower bound operand: AttributeValue: {N:5}, upper bound operand: AttributeValue: {S:x}`,
		`a IN (` + strings.Repeat(`b,`, 100) + `b)`: `The IN operator is provided with too many operands; number of operands: 101`,
	} {
		_, err := table.Parse(table.Delete, tree(t, conditional(condition)))
		wantError(t, condition, err, "Invalid ConditionExpression: "+want)
	}
}
