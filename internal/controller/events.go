package controller

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/weir-dev/weir/internal/manifest"
)

// What an event says was being done.
const (
	actionServe  = "Serve"
	actionDelete = "Delete"
)

// maxNote bounds the text of an event (events.k8s.io/v1).
const maxNote = 1024

// tellings are the events of resources: of what has changed, never of what is as it was.
type tellings struct{ recorder events.EventRecorder }

// leftAlone says that another release serves the resource.
func (t tellings) leftAlone(o client.Object, by Release, other string) {
	t.tell(o, corev1.EventTypeWarning, reasonLeftAlone, actionServe, fmt.Sprintf(
		"Release %s leaves it alone, though it serves the class %s: release %s does. Give one of them another class, or name the other in controller.takeOver if it is gone", by, by.Class, other))
}

// deleted says that a queue's streams are gone.
func (t tellings) deleted(o client.Object, dropped bool) {
	note := "The queue was empty; its streams are deleted"
	if dropped {
		note = "The queue's streams are deleted, with all that they held"
	}
	t.tell(o, corev1.EventTypeNormal, reasonDeleted, actionDelete, note)
}

// changed says that a condition has become what it was not.
func (t tellings) changed(o client.Object, c metav1.Condition) {
	kind := corev1.EventTypeWarning
	if c.Status == metav1.ConditionTrue {
		kind = corev1.EventTypeNormal
	}
	t.tell(o, kind, manifest.Reason(c.Reason), actionServe, c.Message)
}

func (t tellings) tell(o client.Object, kind string, reason manifest.Reason, action, note string) {
	t.recorder.Eventf(o, nil, kind, string(reason), action, "%s", cut(note, maxNote))
}
