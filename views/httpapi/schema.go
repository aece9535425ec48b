package httpapi

import (
	"reflect"

	"github.com/danielgtaylor/huma/v2"
)

func schemaOf(api huma.API, body any) *huma.Schema {
	return api.OpenAPI().Components.Schemas.Schema(reflect.TypeOf(body), true, "")
}

func jsonContent(api huma.API, body any) map[string]*huma.MediaType {
	return map[string]*huma.MediaType{"application/json": {Schema: schemaOf(api, body)}}
}

// eventsSchema is one event or an array of them. The fields' spelling is free, so what is required cannot be said here.
func eventsSchema(batch int) *huma.Schema {
	text := func(limit int, doc string, example any) *huma.Schema {
		return &huma.Schema{Type: "string", MinLength: new(1), MaxLength: new(limit), Description: doc, Examples: []any{example}}
	}
	stamp := &huma.Schema{
		Description: "Event time: RFC 3339, the same without a zone, or an integer epoch whose unit its magnitude tells.",
		OneOf: []*huma.Schema{
			{Type: "string", Pattern: `^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})?$`},
			{Type: "integer"},
		},
	}
	id := &huma.Schema{Type: "integer", Format: "int64", Nullable: true, Description: "Number of the aircraft."}
	snake := &huma.Schema{
		Type: "object", Title: "snake_case", AdditionalProperties: true,
		Required: []string{"event_type", "registration_number", "timestamp"},
		Properties: map[string]*huma.Schema{
			"event_type":          text(64, "What happened.", "departed"),
			"registration_number": text(32, "Whom it happened to; trimmed and upper-cased.", "N14228"),
			"aircraft_id":         id,
			"timestamp":           stamp,
		},
	}
	camel := &huma.Schema{
		Type: "object", Title: "camelCase", AdditionalProperties: true,
		Required: []string{"eventType", "registrationNumber", "timestamp"},
		Properties: map[string]*huma.Schema{
			"eventType":          text(64, "What happened.", "departed"),
			"registrationNumber": text(32, "Whom it happened to; trimmed and upper-cased.", "N14228"),
			"aircraftId":         id,
			"timestamp":          stamp,
		},
	}
	event := &huma.Schema{AnyOf: []*huma.Schema{snake, camel}}
	return &huma.Schema{OneOf: []*huma.Schema{
		event,
		{Type: "array", Items: event, MinItems: new(1), MaxItems: new(batch)},
	}}
}

func eventExamples() map[string]*huma.Example {
	snake := map[string]any{"event_type": "departed", "aircraft_id": 178, "registration_number": "N14228", "timestamp": "2013-01-01T10:17:10.984Z"}
	camel := map[string]any{"eventType": "landed", "aircraftId": 178, "registrationNumber": "N14228", "timestamp": "2013-01-01T13:58:00Z", "dest": "IAH"}
	return map[string]*huma.Example{
		"event": {Summary: "One event", Value: snake},
		"list":  {Summary: "A batch", Value: []any{snake, camel}},
	}
}
