# shellcheck shell=bash
# One certificate authority, the API server's certificate, the key of service accounts, one kubeconfig for the admin.

pki() {
  local folder=$STATE/pki token
  mkdir -p "$folder"
  chmod 0700 "$folder"
  (
    cd "$folder"
    exec 2>"$LOGS/pki.log" # openssl says what it does there
    openssl ecparam -name prime256v1 -genkey -noout -out ca.key
    openssl req -x509 -new -key ca.key -subj /CN=weir-cluster-ca -days 30 -out ca.crt \
      -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
    openssl genrsa -out service-accounts.key 2048
    openssl rsa -in service-accounts.key -pubout -out service-accounts.pub
    openssl ecparam -name prime256v1 -genkey -noout -out api.key
    openssl req -new -key api.key -subj /CN=kube-apiserver -out api.csr
    printf 'subjectAltName=%s,IP:127.0.0.1,IP:%s,IP:%s\nextendedKeyUsage=serverAuth\n' \
      DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost \
      "$NODE_IP" "$API_SERVICE_IP" >api.extensions
    openssl x509 -req -in api.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile api.extensions -out api.crt
  ) || {
    show_log pki
    die "openssl could not make the certificates"
  }
  token=$(openssl rand -hex 16)
  (
    umask 077
    echo "$token,admin,admin,system:masters" >"$folder/tokens.csv"
    cat >"$KUBECONFIG" <<YAML
apiVersion: v1
kind: Config
current-context: weir-cluster
contexts: [{name: weir-cluster, context: {cluster: weir-cluster, user: admin}}]
clusters:
- name: weir-cluster
  cluster: {server: "https://$NODE_IP:6443", certificate-authority-data: $(base64 -w0 "$folder/ca.crt")}
users: [{name: admin, user: {token: $token}}]
YAML
  )
}
