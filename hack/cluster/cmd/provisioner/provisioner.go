package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
)

const (
	// provisionerName is what the StorageClass in manifests/storage.yaml names.
	provisionerName = "weir.dev/local-folder"
	// Set by the scheduler once it knows the node of the claim's first pod.
	selectedNode  = "volume.kubernetes.io/selected-node"
	provisionedBy = "pv.kubernetes.io/provisioned-by"
)

type kind string

const (
	claim  kind = "claim"
	volume kind = "volume"
)

type item struct {
	kind kind
	key  string
}

type provisioner struct {
	client  kubernetes.Interface
	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
	classes storagelisters.StorageClassLister
	root    string
	node    string
}

func (p *provisioner) reconcile(ctx context.Context, work item) error {
	namespace, name, err := cache.SplitMetaNamespaceKey(work.key)
	if err != nil {
		return err
	}
	if work.kind == volume {
		pv, err := p.volumes.Get(name)
		if err != nil {
			return ignoreNotFound(err)
		}
		return p.reclaim(ctx, pv)
	}
	pvc, err := p.claims.PersistentVolumeClaims(namespace).Get(name)
	if err != nil {
		return ignoreNotFound(err)
	}
	return p.provision(ctx, pvc)
}

// provision creates the folder and the volume of a claim that waits for one.
func (p *provisioner) provision(ctx context.Context, pvc *corev1.PersistentVolumeClaim) error {
	if pvc.Spec.VolumeName != "" || pvc.Spec.StorageClassName == nil || pvc.DeletionTimestamp != nil {
		return nil
	}
	class, err := p.classes.Get(*pvc.Spec.StorageClassName)
	if err != nil {
		return ignoreNotFound(err) // a missing class is the claim's mistake, not ours
	}
	waits := class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
	if class.Provisioner != provisionerName || waits && pvc.Annotations[selectedNode] == "" {
		return nil
	}
	if pvc.Spec.VolumeMode != nil && *pvc.Spec.VolumeMode != corev1.PersistentVolumeFilesystem {
		log.Printf("%s/%s: volumeMode %s cannot be had here, only Filesystem", pvc.Namespace, pvc.Name, *pvc.Spec.VolumeMode)
		return nil
	}
	name := "pvc-" + string(pvc.UID) // the same at every attempt
	folder := filepath.Join(p.root, name)
	if err := os.MkdirAll(folder, 0o777); err != nil {
		return err
	}
	// Past the umask: a pod without fsGroup may write as well. The folders above are closed to others than root.
	if err := os.Chmod(folder, 0o777); err != nil { //nolint:gosec // that is the point
		return err
	}
	reclaim := corev1.PersistentVolumeReclaimDelete
	if class.ReclaimPolicy != nil {
		reclaim = *class.ReclaimPolicy
	}
	_, err = p.client.CoreV1().PersistentVolumes().Create(ctx, &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{provisionedBy: provisionerName}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: pvc.Spec.Resources.Requests[corev1.ResourceStorage]},
			AccessModes:                   pvc.Spec.AccessModes,
			PersistentVolumeReclaimPolicy: reclaim,
			StorageClassName:              class.Name,
			ClaimRef: &corev1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: pvc.Namespace, Name: pvc.Name, UID: pvc.UID,
			},
			// Not hostPath: the kubelet sets the fsGroup of local volumes only.
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: folder}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{
					Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{p.node},
				}}}},
			}},
		},
	}, metav1.CreateOptions{})
	switch {
	case apierrors.IsAlreadyExists(err): // an earlier attempt, or a round before the informer saw it
		return nil
	case err != nil:
		return fmt.Errorf("create volume %s: %w", name, err)
	}
	log.Printf("%s/%s: made %s", pvc.Namespace, pvc.Name, folder)
	return nil
}

// reclaim removes the folder and the volume of a claim that is deleted.
func (p *provisioner) reclaim(ctx context.Context, pv *corev1.PersistentVolume) error {
	if pv.Annotations[provisionedBy] != provisionerName || pv.Status.Phase != corev1.VolumeReleased ||
		pv.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete || pv.DeletionTimestamp != nil {
		return nil
	}
	folder := filepath.Join(p.root, pv.Name)
	if pv.Spec.Local == nil || pv.Spec.Local.Path != folder {
		return fmt.Errorf("it is not %s: not removed", folder) // somebody changed it; never remove what we did not make
	}
	if err := os.RemoveAll(folder); err != nil {
		return err
	}
	if err := p.client.CoreV1().PersistentVolumes().Delete(ctx, pv.Name, metav1.DeleteOptions{}); err != nil {
		return ignoreNotFound(err)
	}
	log.Printf("removed %s", folder)
	return nil
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
